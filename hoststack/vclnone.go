//go:build !linux || !(amd64 || arm64) || novcl

package hoststack

import "errors"

// HelperMain is the helper process, which this build of the program has not.
func HelperMain() error {
	return errors.New("this build of the program has no part for VPP's TCP (it was built with the tag novcl, or for another system)")
}
