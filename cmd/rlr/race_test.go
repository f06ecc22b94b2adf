//go:build race

package main

// raced says that the race detector is at work: the router is then several times as slow and as large.
const raced = true
