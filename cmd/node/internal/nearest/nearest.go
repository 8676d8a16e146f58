// Package nearest finds what somebody probably meant.
package nearest

import "strings"

// Word returns the candidate that is closest to word, or "" when none is close:
// at most one change (a letter added, left out, replaced, or swapped with its
// neighbour) for each three letters, and one for shorter words. Case counts for
// nothing. The first of equally close candidates wins.
func Word(word string, candidates []string) string {
	word = strings.ToLower(word)
	best, bestDistance := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c), bestDistance); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// Hint is "; did you mean X? (rest)" when one of the candidates is close to word,
// and "; rest" otherwise: the end of a sentence that says that word is unknown.
func Hint(word string, candidates []string, rest string) string {
	if near := Word(word, candidates); near != "" {
		return "; did you mean " + near + "? (" + rest + ")"
	}
	return "; " + rest
}

// distance is the optimal string alignment distance of a and b, or limit when
// it is not below limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	older, old, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range old {
		old[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, old[j]+1, old[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
		older, old, row = old, row, older
	}
	return min(old[len(b)], limit)
}
