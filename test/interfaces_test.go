package test

import (
	"github.com/parley-mesh/parley/broadcast"
	"github.com/parley-mesh/parley/cluster"
	"github.com/parley-mesh/parley/unicast"
)

// cluster, unicast and broadcast do not know each other. That they fit is proved
// here, at compile time.
var (
	_ unicast.Directory = (*cluster.Node)(nil)
	_ broadcast.Gossip  = (*cluster.Node)(nil)
	_ broadcast.Sender  = (*unicast.Messenger)(nil)
)
