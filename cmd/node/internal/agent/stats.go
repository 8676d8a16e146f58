package agent

import (
	"reflect"
	"strings"
	"unicode"
)

// snake returns a struct as a map with keys in snake_case, for JSON.
func snake(v any) any {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Struct {
		return v
	}
	m := make(map[string]any, rv.NumField())
	for i := range rv.NumField() {
		if f := rv.Type().Field(i); f.IsExported() {
			m[snakeCase(f.Name)] = snake(rv.Field(i).Interface())
		}
	}
	return m
}

// snakeCase turns MaxMessageKB into max_message_kb.
func snakeCase(s string) string {
	var b strings.Builder
	runes := []rune(s)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 &&
			(!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
