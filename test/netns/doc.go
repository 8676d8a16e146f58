// Package netns holds scenarios between hosts: real agents in network namespaces
// of their own, joined by a bridge that can cut any of them off. They need Linux,
// root and iproute2, and skip with the reason where one is missing.
package netns
