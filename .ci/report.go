// Command report reads "go test -json" and prints what a person wants to see of it:
// a line for each package, the output of what failed, and at the end each test that
// was skipped, with its reason.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go test -json, as "go doc test2json" has it.
type event struct {
	Action, Package, Test, Output string
}

// place is the file and line before what a test logs.
var place = regexp.MustCompile(`^\s*\S+\.go:\d+: `)

func main() {
	output := make(map[string]map[string][]string) // by package and test, of tests that have not passed
	var skipped []string
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		tests := output[e.Package]
		if tests == nil {
			tests = make(map[string][]string)
			output[e.Package] = tests
		}
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			tests[e.Test] = append(tests[e.Test], e.Output)
		case "pass", "skip", "fail":
			switch {
			case e.Test != "" && e.Action == "skip":
				skipped = append(skipped, fmt.Sprintf("SKIP: %s %s: %s", e.Package, e.Test, reason(tests[e.Test])))
			case e.Test != "" && e.Action == "fail":
				fmt.Print(strings.Join(tests[e.Test], ""))
			case e.Test == "" && e.Action == "fail": // with tests that never ended, after a panic
				for _, lines := range tests {
					fmt.Print(strings.Join(lines, ""))
				}
			case e.Test == "":
				if n := len(tests[""]); n > 0 {
					fmt.Print(tests[""][n-1])
				}
			}
			delete(tests, e.Test)
		}
	}
	if err := lines.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
	slices.Sort(skipped)
	for _, s := range skipped {
		fmt.Println(s)
	}
}

// reason is what a skipped test logged last.
func reason(lines []string) string {
	for _, line := range slices.Backward(lines) {
		if place.MatchString(line) {
			return strings.TrimSpace(place.ReplaceAllString(line, ""))
		}
	}
	return "it does not say why"
}
