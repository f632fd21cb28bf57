package httpapi_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No request, stream or client leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
