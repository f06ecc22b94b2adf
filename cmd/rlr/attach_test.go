package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"rlr/minivpp/dataplanetest"
)

// TestAttach plays testdata/attach against a VPP that the router did not start.
func TestAttach(t *testing.T) {
	t.Run("vpp", func(t *testing.T) {
		d := dataplanetest.Start(t, dataplanetest.VPP)
		testscript.Run(t, testscript.Params{
			Dir: "testdata/attach",
			Setup: func(env *testscript.Env) error {
				if err := ownRuntime(env); err != nil {
					return err
				}
				env.Setenv("ATTACH", d.APISocket)
				env.Setenv("VPP_PREFIX", vppPrefix())
				return nil
			},
			Cmds: scriptCommands(),
		})
	})
}

// vppctl is VPP's own, on the socket beside the one that ATTACH names: vppctl WORD… and then stdout, as after exec.
func vppctl(ts *testscript.TestScript, neg bool, args []string) {
	bin := filepath.Join(ts.Getenv("VPP_PREFIX"), "bin", "vppctl")
	sock := filepath.Join(filepath.Dir(ts.Getenv("ATTACH")), "cli.sock")
	if err := ts.Exec(bin, append([]string{"-s", sock}, args...)...); (err != nil) != neg {
		ts.Fatalf("vppctl %v: %v", args, err)
	}
}

// ownRuntime gives a script a runtime directory of its own. The scripts' directories are too long for unix sockets.
func ownRuntime(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "rlr")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	env.Setenv("RLR_RUNTIME_DIR", filepath.Join(dir, "r"))
	env.Setenv("TMPDIR", dir)
	return nil
}
