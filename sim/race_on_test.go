//go:build race

package sim

// defaultSeeds is less with the race detector, which makes a simulation ten times as long.
const defaultSeeds = 15
