package main

import (
	"math"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		xs   []float64
		want float64
	}{
		{nil, math.NaN()},
		{[]float64{7}, 7},
		{[]float64{9, 1, 2}, 2},
		{[]float64{8, 1, 4, 2}, 3},
	} {
		before := slices.Clone(c.xs)
		if got := median(c.xs); got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("median(%v) = %v, want %v", c.xs, got, c.want)
		}
		if !slices.Equal(before, c.xs) {
			t.Errorf("median changed %v to %v", before, c.xs)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		xs            []int
		percent, want int
	}{
		{nil, 50, 0},
		{[]int{3}, 99, 3},
		{[]int{3}, 0, 3},
		{[]int{1, 2, 3}, 50, 2},
		{[]int{1, 2, 3}, 99, 3},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		if got := percentile(c.xs, c.percent); got != c.want {
			t.Errorf("percentile of %d values, %d = %d, want %d", len(c.xs), c.percent, got, c.want)
		}
	}
}

// A round that one of the two missed does not count.
func TestRatios(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct{ a, b, want []float64 }{
		{[]float64{10, 30, 80}, []float64{10, 10, 20}, []float64{1, 3, 4}},
		{[]float64{10, nan, 80, 6, 9}, []float64{10, 10, 0, nan, 3}, []float64{1, 3}},
		{[]float64{1}, nil, nil},
	} {
		if got := ratios(c.a, c.b); !slices.Equal(got, c.want) {
			t.Errorf("ratios(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
		}
	}
}

func TestMeasured(t *testing.T) {
	xs := []float64{1, math.NaN(), 2}
	if got := measured(xs); !slices.Equal(got, []float64{1, 2}) {
		t.Errorf("got %v", got)
	}
	if !math.IsNaN(xs[1]) {
		t.Error("it changed what it was given")
	}
}

func TestShort(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 0.5: "0.50", 1: "1.00", 9.999: "10.0", 12.34: "12.3", 99.96: "100", 999: "999",
		999.6: "1.00 k", 1234: "1.23 k", 25_700_000: "25.7 M", 4.2e9: "4.20 G",
	} {
		if got := short(x); got != want {
			t.Errorf("short(%v) = %q, want %q", x, got, want)
		}
	}
	if got := short(math.NaN()); got != "–" {
		t.Errorf("of nothing: %q", got)
	}
}

// A sink tells of the end when all messages are there, also when the last one
// overtook others, and once for each run.
func TestSink(t *testing.T) {
	var done []uint64
	s := sink{done: func(n uint64) { done = append(done, n) }}
	plain := make([]byte, 16)
	s.take(plain)
	s.take(lastBody(16, 3))
	if len(done) != 0 {
		t.Fatal("done before the last message came")
	}
	s.take(plain)
	s.take(lastBody(16, 1))
	if !slices.Equal(done, []uint64{3, 1}) {
		t.Fatalf("done: %v", done)
	}
}
