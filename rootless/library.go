package rootless

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// libraryDirs lists where the libraries of a vpp binary may be, best first: VPP is installed as PREFIX/bin/vpp with
// PREFIX/lib[/TRIPLET] or PREFIX/lib64 beside it.
func libraryDirs(binary string) []string {
	if real, err := filepath.EvalSymlinks(binary); err == nil {
		binary = real
	}
	prefix := filepath.Dir(filepath.Dir(binary))
	dirs, _ := filepath.Glob(filepath.Join(prefix, "lib", "*-linux-gnu")) // the pattern is well-formed unless prefix has [
	return append(dirs, filepath.Join(prefix, "lib"), filepath.Join(prefix, "lib64"))
}

// FindLibrary returns libvppcom of the same installation as the vpp binary: only that one matches its shared memory.
func FindLibrary(vppBinary string) (string, error) {
	dirs := libraryDirs(vppBinary)
	for _, dir := range dirs {
		if lib := sharedLibrary(dir, "libvppcom.so"); lib != "" {
			return lib, nil
		}
	}
	return "", fmt.Errorf("find libvppcom.so of %s: not in %s: %w", vppBinary, strings.Join(dirs, ", "), os.ErrNotExist)
}

// sharedLibrary returns name in dir, or its highest version when only names with a version are there, as in packages
// without the headers; "" when there is none.
func sharedLibrary(dir, name string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var found []string
	for _, e := range entries {
		if e.Name() == name || strings.HasPrefix(e.Name(), name+".") {
			found = append(found, e.Name())
		}
	}
	if len(found) == 0 {
		return ""
	}
	if slices.Contains(found, name) {
		return filepath.Join(dir, name)
	}
	return filepath.Join(dir, slices.Max(found))
}

// VPPVersion returns the release of a vpp binary by its libraries' names, such as "26.06"; "" when they do not tell.
// Nothing is executed.
func VPPVersion(vppBinary string) string {
	for _, dir := range libraryDirs(vppBinary) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if version, ok := strings.CutPrefix(e.Name(), "libvnet.so."); ok {
				return version
			}
		}
	}
	return ""
}

// availablePlugins returns those of rlr's plugins that the installation of a vpp binary has.
func availablePlugins(vppBinary string) ([]string, error) {
	for _, dir := range libraryDirs(vppBinary) {
		dir = filepath.Join(dir, "vpp_plugins")
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		var found []string
		for _, p := range plugins {
			if _, err := os.Stat(filepath.Join(dir, p)); err == nil {
				found = append(found, p)
			}
		}
		if !slices.Contains(found, neededPlugin) {
			return nil, fmt.Errorf("%s lacks %s: install FD.io's package vpp-plugin-core", dir, neededPlugin)
		}
		return found, nil
	}
	return slices.Clone(plugins), nil // an unusual layout: VPP knows its own plugin folder
}
