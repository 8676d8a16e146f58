package control

import (
	"errors"
	"net/http"
	"testing"
)

// The exit codes are a promise to scripts.
func TestExitCodes(t *testing.T) {
	want := map[Code]int{
		CodeInternal: 1, CodeUsage: 1, CodeCanceled: 1,
		CodeUnreachable: 2, CodeAmbiguous: 2,
		CodeUnknownNode: 3,
		CodeNodeLeft:    4, CodeNodeFailed: 4,
		CodeTimeout: 5, CodeNoReply: 5,
		CodePartial:       6,
		CodeHandlerFailed: 7, CodeNoListener: 7, CodeNoService: 7,
		CodeRefused: 8, CodeBusy: 8,
		CodeTooLarge: 9,
	}
	if len(want) != len(table) {
		t.Errorf("the table has %d codes, this test %d", len(table), len(want))
	}
	for code, exit := range want {
		if got := ExitCode(code); got != exit {
			t.Errorf("ExitCode(%s) = %d, want %d", code, got, exit)
		}
		if s := httpStatus(code); s == http.StatusOK || s < 400 {
			t.Errorf("httpStatus(%s) = %d, which says that all is well", code, s)
		}
	}
	if got := ExitCode("of a later version"); got != 1 {
		t.Errorf("ExitCode of an unknown code = %d, want 1", got)
	}
}

func TestFaultUnwraps(t *testing.T) {
	cause := errors.New("cause")
	f := NewFault(CodeBusy, NotDelivered, "sentence", cause)
	if !errors.Is(f, cause) || f.Error() != "sentence" || f.Exit != 8 {
		t.Errorf("fault is %+v", f)
	}
}
