package verify

import (
	"os"
	"testing"

	"caisson/verify/vary"
)

func TestMain(m *testing.M) {
	vary.Init()
	os.Exit(m.Run())
}
