package event

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Each list has every constant of its kind: one that is declared and forgotten in its
// list fails here.
func TestListsAreComplete(t *testing.T) {
	declared := declaredConstants(t)
	lists := map[string][]string{
		"Type":    Texts(Types()),
		"Verdict": Texts(Verdicts()),
		"Review":  Texts(Reviews()),
		"Reason…": Reasons(),
		"Flag…":   Flags(),
	}
	for kind, got := range lists {
		if want := declared[kind]; len(want) < 2 || !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Errorf("%s: listed %q, declared %q", kind, got, want)
		}
	}
}

// declaredConstants are the values of the package's text constants, sorted, by their
// type, or by the prefix of their names where they have none.
func declaredConstants(t *testing.T) map[string][]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string][]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			if d, ok := declaration.(*ast.GenDecl); ok && d.Tok == token.CONST {
				addConstants(declared, d.Specs)
			}
		}
	}
	for _, values := range declared {
		slices.Sort(values)
	}
	return declared
}

func addConstants(declared map[string][]string, specs []ast.Spec) {
	for _, s := range specs {
		spec := s.(*ast.ValueSpec)
		if len(spec.Values) != 1 {
			continue
		}
		literal, ok := spec.Values[0].(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			continue
		}
		kind := ""
		if name, ok := spec.Type.(*ast.Ident); ok {
			kind = name.Name
		}
		for _, prefix := range []string{"Reason", "Flag"} {
			if kind == "" && strings.HasPrefix(spec.Names[0].Name, prefix) {
				kind = prefix + "…"
			}
		}
		value, err := strconv.Unquote(literal.Value)
		if err != nil {
			panic(err) // the parser has accepted it
		}
		declared[kind] = append(declared[kind], value)
	}
}

// The lists of types and verdicts are the enums of the schemas, in their order.
func TestListsAreTheSchemasEnums(t *testing.T) {
	want := map[string][]string{
		"EventType": Texts(Types()),
		"Verdict":   Texts(Verdicts()),
		"Review":    Texts(Reviews()),
	}
	newest := map[string]string{}
	for _, s := range Schemas() {
		newest[s.Record] = s.JSON
	}
	check := func(record, enum string) {
		t.Helper()
		var v any
		if err := json.Unmarshal([]byte(newest[record]), &v); err != nil {
			t.Fatal(err)
		}
		if got := enumSymbols(v, enum); !slices.Equal(got, want[enum]) {
			t.Errorf("%s: %s is %q, want %q", record, enum, got, want[enum])
		}
	}
	check("Conversion", "EventType")
	check("Outcome", "EventType")
	check("Outcome", "Verdict")
	check("Outcome", "Review")
}

// enumSymbols finds the enum with a name in a schema.
func enumSymbols(v any, name string) []string {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if found := enumSymbols(x, name); found != nil {
				return found
			}
		}
	case map[string]any:
		if v["type"] == "enum" && v["name"] == name {
			var symbols []string
			for _, s := range v["symbols"].([]any) {
				symbols = append(symbols, s.(string))
			}
			return symbols
		}
		for _, x := range v {
			if found := enumSymbols(x, name); found != nil {
				return found
			}
		}
	}
	return nil
}
