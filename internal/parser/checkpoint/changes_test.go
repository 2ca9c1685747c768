package checkpoint

import (
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A field that is added to File but not compared would be missing from checkpoints until another field of the file
// changes.
func TestSameFileComparesEveryField(t *testing.T) {
	var change func(v reflect.Value, path string)
	var file File
	count := 0
	change = func(v reflect.Value, path string) {
		before := reflect.New(v.Type()).Elem()
		before.Set(v)
		switch v.Interface().(type) {
		case time.Time:
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
		default:
			switch v.Kind() {
			case reflect.Struct:
				for i := range v.NumField() {
					change(v.Field(i), path+"."+v.Type().Field(i).Name)
				}
				return
			case reflect.Slice:
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			case reflect.String:
				v.SetString("x")
			case reflect.Int, reflect.Int64:
				v.SetInt(1)
			case reflect.Uint64:
				v.SetUint(1)
			default:
				t.Fatalf("%s is a %s: this test cannot change one yet", path, v.Kind())
			}
		}
		count++
		if sameFile(&file, &File{}) {
			t.Errorf("%s is not compared", path)
		}
		v.Set(before)
	}
	change(reflect.ValueOf(&file).Elem(), "File")
	if !sameFile(&file, &File{}) || count < 15 {
		t.Errorf("%d fields were changed and restored, want at least 15; the file is %+v", count, file)
	}
}

type pair struct{ key, value int }

// For any two lists, applying the changes to the first yields the second.
func TestChangesProduceTheOtherList(t *testing.T) {
	equal := func(a, b *pair) bool { return *a == *b }
	element := rapid.Custom(func(t *rapid.T) pair {
		return pair{rapid.IntRange(0, 12).Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "value")}
	})
	rapid.Check(t, func(t *rapid.T) {
		before := rapid.SliceOf(element).Draw(t, "before")
		after := rapid.OneOf(rapid.SliceOf(element), rapid.Just(before), rapid.Custom(func(t *rapid.T) []pair {
			return append(
				append([]pair{}, before[rapid.IntRange(0, len(before)).Draw(t, "dropped"):]...),
				rapid.SliceOf(element).Draw(t, "added")...)
		})).Draw(t, "after")
		l := newList(before, func(p *pair) int { return p.key }, equal)
		got, err := apply(before, l.changes(after))
		if err != nil || len(got) != len(after) || len(got) > 0 && !reflect.DeepEqual(got, after) {
			t.Fatalf("applying the changes from %v to %v yields %v, %v", before, after, got, err)
		}
	})
}

func TestRunsOutsideTheBaseAreRefused(t *testing.T) {
	base := make([]int, 10)
	for _, runs := range [][]run[int]{
		{{From: -1}}, {{Count: -1}}, {{From: 11}}, {{From: 5, Count: 6}}, {{From: 1, Count: int(^uint(0) >> 1)}},
		{{From: int(^uint(0) >> 1), Count: 1}},
		{{From: 0, Count: 2}, {From: 1, Count: 1}}, // used twice: a small file must not become a large state
	} {
		if got, err := apply(base, runs); err == nil {
			t.Errorf("%+v yields %v, want an error", runs, got)
		}
	}
}
