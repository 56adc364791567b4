/**
 * Runs the tests phase by phase, cheapest first, and prints one summary: `scripts/test.ts [--phase=name] [file…]`.
 * A file that fails runs once more by itself: two cores full of namespaces and agents can be late, a defect is there
 * again. What passed only then is named at the end, to be mended.
 * With MESH_REQUIRE_ROOT=1 (CI) a skipped test is a failure: a privileged test that did not run proves nothing.
 */
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';

interface Phase {
  readonly name: string;
  readonly globs: readonly string[];
  readonly concurrency: number;
  /** Two at a time beside the others of `globs`. */
  readonly beside?: readonly string[];
}

/** Files that wait most of their time, for bounds of many seconds: in line with the others they would leave a core idle. */
const WAITING = [
  'test/netns/hand-over/crash-streams.test.ts',
  'test/netns/istio/steady.test.ts',
  'test/netns/zds/bad-packets.test.ts',
  'test/netns/mesh/bounds.test.ts',
  'test/netns/mesh/ca-outage.test.ts',
  'test/conformance/hbone-python/server.test.ts',
];
const EACH_CORE = availableParallelism();

/**
 * `*.heavy.test.ts` want the whole machine for a minute or two and look at no clock: with each other only.
 * `*.alone.test.ts` measure or flood: next to others they would blame the wrong code.
 */
const PHASES: readonly Phase[] = [
  { name: 'unit', globs: ['test/unit/**/!(*.alone|*.heavy).test.ts'], concurrency: EACH_CORE },
  { name: 'net', globs: ['test/net/**/!(*.alone|*.heavy).test.ts'], concurrency: EACH_CORE },
  {
    name: 'netns',
    globs: ['test/{netns,conformance}/**/!(*.alone|*.heavy).test.ts'],
    concurrency: EACH_CORE,
    beside: WAITING,
  },
  { name: 'heavy', globs: ['test/**/*.heavy.test.ts'], concurrency: 2 },
  { name: 'alone', globs: ['test/**/*.alone.test.ts'], concurrency: 1 },
];

/** One test may take this long; the slowest, 12.8 GB through a mesh, needs a tenth on an idle machine. */
const TEST_TIMEOUT_MS = 660_000;
/** Named at the end: who makes the suite slow. */
const SLOWEST = 12;
/** With more files than this, something is broken, not unstable. */
const MAX_RUN_AGAIN = 6;
/** What the runner itself prints at the end of a phase; replaced by the summary of all phases. */
const PHASE_SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /;

type Counts = TestSummary['counts'];
type TestSummary = Extract<TestEvent, { type: 'test:summary' }>['data'];

/** One run of the runner over some files. */
class Outcome {
  counts: Counts | undefined;
  readonly ofFile = new Map<string, Counts>();
  readonly failed = new Set<string>();

  observe(event: TestEvent): void {
    if (event.type === 'test:fail' && event.data.todo === undefined && event.data.file !== undefined) {
      this.failed.add(event.data.file);
    }
    if (event.type !== 'test:summary') return;
    const { file, counts, success, duration_ms: durationMs } = event.data;
    if (file === undefined) this.counts = counts;
    else {
      durations.set(file, durationMs / 1_000);
      this.ofFile.set(file, counts);
      if (!success) this.failed.add(file);
    }
  }
}

const NONE = { tests: 0, suites: 0, passed: 0, cancelled: 0, skipped: 0, todo: 0 };
const totals = { ...NONE };
/** Reason → names of the tests. */
const skipped = new Map<string, string[]>();
/** Seconds of each file. */
const durations = new Map<string, number>();
/** Files that failed among others and passed by themselves. */
const unstable: string[] = [];
let isEveryFileGood = true;

function selectPhases(args: readonly string[]): readonly Phase[] {
  const names = args.filter((arg) => arg.startsWith('--phase=')).map((arg) => arg.slice('--phase='.length));
  const files = args.filter((arg) => !arg.startsWith('--'));
  if (files.length > 0) return [{ name: 'chosen', globs: files, concurrency: EACH_CORE }];
  return names.length === 0 ? PHASES : PHASES.filter((phase) => names.includes(phase.name));
}

function filesOf({ globs, beside = [] }: Phase): readonly string[] {
  return globSync(globs)
    .filter((file) => !beside.includes(file))
    .toSorted();
}

function slowest(): readonly (readonly [file: string, seconds: number])[] {
  return [...durations].toSorted(([, a], [, b]) => b - a).slice(0, SLOWEST);
}

function addUp(counts: Partial<Counts>, sign: 1 | -1 = 1): void {
  for (const key of Object.keys(NONE) as (keyof typeof NONE)[]) totals[key] += sign * (counts[key] ?? 0);
}

/** As the runner words it, so that whoever reads its output reads this. */
function summaryLines(durationMs: number): readonly string[] {
  const { tests, suites, passed, cancelled, skipped: skips, todo } = totals;
  const failed = tests - passed - cancelled - skips - todo;
  const lines = [`tests ${tests}`, `suites ${suites}`, `pass ${passed}`, `fail ${failed}`, `cancelled ${cancelled}`];
  return [...lines, `skipped ${skips}`, `todo ${todo}`, `duration_ms ${Math.round(durationMs)}`];
}

/** Takes what the overall summary needs out of `event`; false = do not print it. */
function isPrinted(event: TestEvent): boolean {
  if (event.type === 'test:pass' && event.data.skip !== undefined) {
    const reason = event.data.skip === true || event.data.skip === '' ? 'no reason given' : String(event.data.skip);
    skipped.set(reason, [...(skipped.get(reason) ?? []), event.data.name]);
  }
  if (event.type === 'test:summary') return false;
  return !(event.type === 'test:diagnostic' && PHASE_SUMMARY.test(event.data.message));
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { message, nesting: 0, level: 'info' } };
}

async function* runFiles(
  files: readonly string[],
  concurrency: number,
  outcome: Outcome,
): AsyncGenerator<TestEvent, void, undefined> {
  if (files.length === 0) return;
  for await (const event of run({ files, concurrency, timeout: TEST_TIMEOUT_MS })) {
    outcome.observe(event);
    if (isPrinted(event)) yield event;
  }
  addUp(outcome.counts ?? {});
}

/** A machine busy with other tests is no excuse: what fails by itself too, fails; what does not is named. */
async function* runAgain(first: Outcome): AsyncGenerator<TestEvent, void, undefined> {
  for (const file of first.failed) {
    yield diagnostic(`failed, once more by itself: ${file}`);
    addUp(first.ofFile.get(file) ?? { tests: 1 }, -1);
    const second = new Outcome();
    yield* runFiles([file], 1, second);
    if (second.failed.size === 0 && (second.counts?.tests ?? 0) > 0) unstable.push(file);
    else isEveryFileGood = false;
  }
}

async function* events(phases: readonly Phase[]): AsyncGenerator<TestEvent> {
  const startedMs = performance.now();
  for (const phase of phases) {
    const { concurrency, beside = [] } = phase;
    const outcome = new Outcome();
    const ofWaiting = new Outcome();
    // Told when all is over: events of two runs must not mix.
    const waiting = Array.fromAsync(runFiles(beside, 2, ofWaiting));
    yield* runFiles(filesOf(phase), concurrency, outcome);
    yield* await waiting;
    if (outcome.failed.size + ofWaiting.failed.size > MAX_RUN_AGAIN) isEveryFileGood = false;
    else for (const first of [outcome, ofWaiting]) yield* runAgain(first);
  }
  for (const [file, seconds] of slowest()) yield diagnostic(`${seconds.toFixed(1)} s in ${path.relative('.', file)}`);
  for (const [reason, names] of skipped) yield diagnostic(`${names.length} not run: ${reason}`);
  for (const file of unstable) yield diagnostic(`unstable, passed only when run again by itself: ${file}`);
  for (const line of summaryLines(performance.now() - startedMs)) yield diagnostic(line);
}

function isGood(): boolean {
  if (totals.tests === 0) {
    console.error('no test ran');
    return false;
  }
  const isSkipAllowed = process.env['MESH_REQUIRE_ROOT'] !== '1';
  if (skipped.size > 0 && !isSkipAllowed) {
    console.error('MESH_REQUIRE_ROOT=1: a skipped test counts as failed:');
    for (const [reason, names] of skipped) for (const name of names) console.error(`  ${name} (${reason})`);
  }
  return isEveryFileGood && (isSkipAllowed || skipped.size === 0);
}

await pipeline(Readable.from(events(selectPhases(process.argv.slice(2)))), spec(), process.stdout, { end: false });
process.exitCode = isGood() ? 0 : 1;
