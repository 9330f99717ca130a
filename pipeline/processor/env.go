package processor

import "github.com/nimriz/partners/pipeline/engine"

// Env is the machine that a processor runs on. A simulation replaces it.
type Env struct {
	engine.Env
	// SlabBytes is how much of a partition's clicks gathers in memory before it becomes
	// a segment; 0 is its share of Config.ClickMemory.
	SlabBytes int64
}

// DefaultEnv is this machine.
func DefaultEnv() Env { return Env{Env: engine.DefaultEnv()} }

// Steps of a processor's life, as engine names them.
const (
	StepAssigned  = engine.StepAssigned
	StepOpened    = engine.StepOpened
	StepRestored  = engine.StepRestored
	StepPolled    = engine.StepPolled
	StepJudged    = engine.StepJudged
	StepFlushed   = engine.StepFlushed
	StepProduced  = engine.StepProduced
	StepEndFailed = engine.StepEndFailed
	StepEnded     = engine.StepEnded
	StepApplied   = engine.StepApplied
	StepRevoked   = engine.StepRevoked
	StepFollowed  = engine.StepFollowed
)
