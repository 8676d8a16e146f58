//go:build race

package sp

// raceEnabled says that pools forget at random what was put into them.
const raceEnabled = true
