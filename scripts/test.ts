/**
 * Runs the tests phase by phase, cheapest first, and prints one summary: `scripts/test.ts [--phase=name] [file…]`.
 * With MESH_REQUIRE_ROOT=1 (CI) a skipped test is a failure: a privileged test that did not run proves nothing.
 */
import { availableParallelism } from 'node:os';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { spec, type TestEvent } from 'node:test/reporters';

interface Phase {
  readonly name: string;
  readonly globs: readonly string[];
  readonly concurrency: number;
}

/** Files named `*.alone.test.ts` measure or flood: next to others they would blame the wrong code. */
const PHASES: readonly Phase[] = [
  { name: 'unit', globs: ['test/unit/**/!(*.alone).test.ts'], concurrency: availableParallelism() },
  { name: 'net', globs: ['test/net/**/!(*.alone).test.ts'], concurrency: availableParallelism() },
  {
    name: 'netns',
    globs: ['test/{netns,conformance}/**/!(*.alone).test.ts'],
    concurrency: availableParallelism(),
  },
  { name: 'alone', globs: ['test/{net,netns,conformance}/**/*.alone.test.ts'], concurrency: 1 },
];

/** One test may take this long; the slowest, 12.8 GB through a mesh, needs a tenth on an idle machine. */
const TEST_TIMEOUT_MS = 660_000;
/** What the runner itself prints at the end of a phase; replaced by the summary of all phases. */
const PHASE_SUMMARY = /^(tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) /;

const totals = { tests: 0, suites: 0, passed: 0, cancelled: 0, skipped: 0, todo: 0 };
/** Reason → names of the tests. */
const skipped = new Map<string, string[]>();
let isEveryPhaseGood = true;

function selectPhases(args: readonly string[]): readonly Phase[] {
  const names = args.filter((arg) => arg.startsWith('--phase=')).map((arg) => arg.slice('--phase='.length));
  const files = args.filter((arg) => !arg.startsWith('--'));
  if (files.length > 0) return [{ name: 'chosen', globs: files, concurrency: availableParallelism() }];
  return names.length === 0 ? PHASES : PHASES.filter((phase) => names.includes(phase.name));
}

function addUp({ counts, success }: { readonly counts: typeof totals; readonly success: boolean }): void {
  isEveryPhaseGood &&= success;
  totals.tests += counts.tests;
  totals.suites += counts.suites;
  totals.passed += counts.passed;
  totals.cancelled += counts.cancelled;
  totals.skipped += counts.skipped;
  totals.todo += counts.todo;
}

/** As the runner words it, so that whoever reads its output reads this. */
function summaryLines(durationMs: number): readonly string[] {
  const { tests, suites, passed, cancelled, skipped: skips, todo } = totals;
  const failed = tests - passed - cancelled - skips - todo;
  const lines = [`tests ${tests}`, `suites ${suites}`, `pass ${passed}`, `fail ${failed}`, `cancelled ${cancelled}`];
  return [...lines, `skipped ${skips}`, `todo ${todo}`, `duration_ms ${Math.round(durationMs)}`];
}

/** Takes what the overall summary needs out of `event`; false = do not print it. */
function observe(event: TestEvent): boolean {
  if (event.type === 'test:pass' && event.data.skip !== undefined) {
    const reason = event.data.skip === true || event.data.skip === '' ? 'no reason given' : String(event.data.skip);
    skipped.set(reason, [...(skipped.get(reason) ?? []), event.data.name]);
  }
  if (event.type === 'test:summary') {
    if (event.data.file === undefined) addUp(event.data);
    return false;
  }
  return !(event.type === 'test:diagnostic' && PHASE_SUMMARY.test(event.data.message));
}

function diagnostic(message: string): TestEvent {
  return { type: 'test:diagnostic', data: { message, nesting: 0, level: 'info' } };
}

async function* events(phases: readonly Phase[]): AsyncGenerator<TestEvent> {
  const startedMs = performance.now();
  for (const phase of phases) {
    const stream = run({
      globPatterns: phase.globs,
      concurrency: phase.concurrency,
      timeout: TEST_TIMEOUT_MS,
    });
    for await (const event of stream) if (observe(event)) yield event;
  }
  for (const [reason, names] of skipped) yield diagnostic(`${names.length} not run: ${reason}`);
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
  return isEveryPhaseGood && (isSkipAllowed || skipped.size === 0);
}

await pipeline(Readable.from(events(selectPhases(process.argv.slice(2)))), spec(), process.stdout, { end: false });
process.exitCode = isGood() ? 0 : 1;
