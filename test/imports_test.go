package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/parley-mesh/parley"

// Every foreign library has one door, and its manners stop there. A library that
// is not listed has none.
var doors = map[string][]string{
	"github.com/hashicorp/memberlist": {"cluster"},
	"go.nanomsg.org/mangos/v3":        {"sp"},
	"github.com/hashicorp/go-msgpack": {"codec"},
	"github.com/urfave/cli/v2":        {"cmd"},
	"github.com/BurntSushi/toml":      {"cmd"},
}

// Our own packages import in one direction. What is not listed composes the house
// (the commands, the examples, the tests) and may import all of it.
var layers = map[string][]string{
	"codec":     {},
	"sp":        {},
	"cluster":   {"codec"},
	"unicast":   {"sp", "codec"},
	"broadcast": {"codec"},
}

// In test files goleak is welcome everywhere, and
//   - an external test (package x_test, most of all examples) of a layer shows it
//     as its users see it, and may import all of ours;
//   - test/ may speak to our endpoints with mangos itself, to prove that it can.
var (
	testOnly  = []string{"go.uber.org/goleak"}
	testDoors = map[string][]string{"go.nanomsg.org/mangos/v3": {"test"}}
)

// goFile is what the rules look at.
type goFile struct {
	path     string // slash-separated, from the module's root
	pkg      string // the name in its package clause
	imports  []string
	testFile bool
}

func (f goFile) layer() string { return strings.Split(f.path, "/")[0] }

// violations tells what a file imports and should not.
func violations(f goFile) (bad []string) {
	external := f.testFile && strings.HasSuffix(f.pkg, "_test")
	for _, imp := range f.imports {
		if own, ok := strings.CutPrefix(imp, module+"/"); ok {
			allowed, layered := layers[f.layer()]
			target := strings.Split(own, "/")[0]
			if layered && !external && target != f.layer() && !slices.Contains(allowed, target) {
				bad = append(bad, f.path+" imports "+own+"; "+f.layer()+" may import of ours: "+strings.Join(allowed, ", "))
			}
			continue
		}
		if first, _, _ := strings.Cut(imp, "/"); !strings.Contains(first, ".") {
			continue // the standard library
		}
		if f.testFile && slices.Contains(testOnly, imp) {
			continue
		}
		open, door := false, ""
		for lib, rooms := range doors {
			if imp != lib && !strings.HasPrefix(imp, lib+"/") {
				continue
			}
			door = strings.Join(rooms, ", ")
			open = slices.Contains(rooms, f.layer()) || f.testFile && slices.Contains(testDoors[lib], f.layer())
		}
		switch {
		case door == "":
			bad = append(bad, f.path+" imports "+imp+", which has no door in this house")
		case !open:
			bad = append(bad, f.path+" imports "+imp+"; its door is "+door)
		}
	}
	return bad
}

// files reads the import clauses of every Go file under root.
func files(t *testing.T, root string) (all []goFile) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			if p == filepath.Join(root, "test", "bench") {
				return filepath.SkipDir // a module of its own, there to import what ours do not
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f := goFile{path: filepath.ToSlash(rel), pkg: parsed.Name.Name, testFile: strings.HasSuffix(name, "_test.go")}
		for _, spec := range parsed.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imp)
		}
		all = append(all, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestImports(t *testing.T) {
	root := ".."
	if mod, err := os.ReadFile(filepath.Join(root, "go.mod")); err != nil || !strings.HasPrefix(string(mod), "module "+module+"\n") {
		t.Fatalf("%s is not the root of the module: %v", root, err)
	}
	seen := make(map[string]bool)
	used := make(map[string]bool)
	for _, f := range files(t, root) {
		seen[f.layer()] = true
		for lib, rooms := range doors {
			if slices.Contains(rooms, f.layer()) && slices.ContainsFunc(f.imports, func(imp string) bool {
				return imp == lib || strings.HasPrefix(imp, lib+"/")
			}) {
				used[lib] = true
			}
		}
		for _, v := range violations(f) {
			t.Error(v)
		}
	}
	// Rules about what is not there are rules about nothing.
	for layer := range layers {
		if !seen[layer] {
			t.Errorf("there is no package %s", layer)
		}
	}
	for lib := range doors {
		if !used[lib] {
			t.Errorf("nobody imports %s", lib)
		}
	}
}

// The rules refuse what they are there to refuse.
func TestImportRules(t *testing.T) {
	tests := []struct {
		file, pkg, imports string
		allowed            bool
	}{
		{"cluster/node.go", "cluster", "github.com/hashicorp/memberlist", true},
		{"unicast/send.go", "unicast", "github.com/hashicorp/memberlist", false},
		{"cluster/node_test.go", "cluster_test", "github.com/hashicorp/memberlist", true},
		{"test/x_test.go", "test", "github.com/hashicorp/memberlist", false},
		{"sp/dial.go", "sp", "go.nanomsg.org/mangos/v3/protocol/req", true},
		{"unicast/send.go", "unicast", "go.nanomsg.org/mangos/v3", false},
		{"unicast/send_test.go", "unicast", "go.nanomsg.org/mangos/v3", false},
		{"test/interop_test.go", "test", "go.nanomsg.org/mangos/v3/protocol/req", true},
		{"test/harness/x.go", "harness", "go.nanomsg.org/mangos/v3", false},
		{"codec/msgpack.go", "codec", "github.com/hashicorp/go-msgpack/v2/codec", true},
		{"cluster/meta.go", "cluster", "github.com/hashicorp/go-msgpack/v2/codec", false},
		{"cmd/node/main.go", "main", "github.com/urfave/cli/v2", true},
		{"examples/pingpong/main.go", "main", "github.com/urfave/cli/v2", false},
		{"cluster/config.go", "cluster", "github.com/BurntSushi/toml", false},
		{"codec/x.go", "codec", "github.com/google/uuid", false},
		{"cluster/main_test.go", "cluster", "go.uber.org/goleak", true},
		{"cluster/main.go", "cluster", "go.uber.org/goleak", false},
		{"codec/x.go", "codec", module + "/cluster", false},
		{"sp/x.go", "sp", module + "/codec", false},
		{"cluster/x.go", "cluster", module + "/codec", true},
		{"cluster/x.go", "cluster", module + "/unicast", false},
		{"unicast/x.go", "unicast", module + "/cluster", false},
		{"unicast/x_test.go", "unicast", module + "/cluster", false},
		{"unicast/x.go", "unicast", module + "/sp", true},
		{"unicast/example_test.go", "unicast_test", module + "/cluster", true},
		{"broadcast/x.go", "broadcast", module + "/unicast", false},
		{"broadcast/x.go", "broadcast", module + "/sp", false},
		{"cmd/node/x.go", "main", module + "/broadcast", true},
		{"broadcast/x.go", "broadcast", "encoding/json", true},
	}
	for _, tt := range tests {
		f := goFile{path: tt.file, pkg: tt.pkg, imports: []string{tt.imports}, testFile: strings.HasSuffix(path.Base(tt.file), "_test.go")}
		if bad := violations(f); (len(bad) == 0) != tt.allowed {
			t.Errorf("%s (package %s) with %s: allowed %v, want %v: %q", tt.file, tt.pkg, tt.imports, len(bad) == 0, tt.allowed, bad)
		}
	}
}
