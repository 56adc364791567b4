/** Loaded before a test file by `scripts/fuzz.ts`: its properties run with the seed of the round, and longer than usual. */
import fc from 'fast-check';

const FLAG = '--fuzz-seed=';
/** Where a test says nothing else: ten times what fast-check does. */
const RUNS = 1_000;
/** One property has so long; what it has found until then counts. */
const PROPERTY_MS = 10_000;

const seed = process.argv.find((argument) => argument.startsWith(FLAG))?.slice(FLAG.length);
fc.configureGlobal({ seed: Number(seed), numRuns: RUNS, interruptAfterTimeLimit: PROPERTY_MS });
