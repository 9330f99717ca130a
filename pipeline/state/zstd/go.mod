// Takes the place of the module that Pebble imports when cgo is on: see the replace in the repository's go.mod.
module github.com/DataDog/zstd

go 1.26.0

require github.com/klauspost/compress v1.20.3
