package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sirupsen/logrus"

	"rlr/rootless"
)

// TestVPP plays testdata/vpp: what a router does with a VPP of its own.
func TestVPP(t *testing.T) {
	needVPP(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/vpp",
		Setup: func(env *testscript.Env) error {
			env.Setenv("VPP_PREFIX", vppPrefix())
			if err := ownRuntime(env); err != nil {
				return err
			}
			dir := env.Getenv("RLR_RUNTIME_DIR")
			env.Defer(func() { // the VPP of a router that was killed, where the script failed
				routers, _ := os.ReadDir(dir)
				for _, r := range routers {
					if err := rootless.StopLeftover(filepath.Join(dir, r.Name()), logrus.NewEntry(logrus.New())); err != nil {
						t.Error(err)
					}
				}
			})
			return nil
		},
		Cmds: scriptCommands(),
	})
}
