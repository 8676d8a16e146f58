package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// median of xs, and NaN of none. xs is not changed.
func median(xs []float64) float64 {
	if len(xs) == 0 {
		return math.NaN()
	}
	xs = slices.Sorted(slices.Values(xs))
	if n := len(xs); n%2 == 0 {
		return (xs[n/2-1] + xs[n/2]) / 2
	}
	return xs[len(xs)/2]
}

// percentile of sorted by nearest rank, and 0 of none.
func percentile[T cmp.Ordered](sorted []T, percent int) (v T) {
	if len(sorted) == 0 {
		return v
	}
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1]
}

// ratios are a[i]/b[i] of the rounds in which both were measured.
func ratios(a, b []float64) (rs []float64) {
	for i := range min(len(a), len(b)) {
		if r := a[i] / b[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			rs = append(rs, r)
		}
	}
	return rs
}

// measured is xs without the rounds that gave nothing (NaN).
func measured(xs []float64) []float64 {
	return slices.DeleteFunc(slices.Clone(xs), math.IsNaN)
}

// short writes x with three digits and the letter of its thousands.
func short(x float64) string {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return "–"
	}
	unit := ""
	for _, u := range []string{" k", " M", " G"} {
		if math.Abs(x) < 999.5 {
			break
		}
		x /= 1000
		unit = u
	}
	switch {
	case math.Abs(x) >= 99.95 || x == 0:
		return fmt.Sprintf("%.0f%s", x, unit)
	case math.Abs(x) >= 9.995:
		return fmt.Sprintf("%.1f%s", x, unit)
	}
	return fmt.Sprintf("%.2f%s", x, unit)
}
