/**
 * Runs the property tests again and again, each round with another seed: `scripts/fuzz.ts [--minutes N] [--seed S] [file…]`.
 * It ends with the first round that fails, and says how to run that one again; with `--seed` there is that round only.
 */
import { randomInt } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { run } from 'node:test';
import { inspect, parseArgs } from 'node:util';

const PRELOAD = new URL('../test/support/fuzz-seed.ts', import.meta.url).href;
/** No net tests: their sockets take the time, and the same codecs are driven here. */
const GLOB = 'test/unit/**/*.test.ts';
const FILE_TIMEOUT_MS = 300_000;

const { values, positionals } = parseArgs({
  options: { minutes: { type: 'string', default: '5' }, seed: { type: 'string' } },
  allowPositionals: true,
});

interface Round {
  readonly passed: number;
  /** File → what its failed tests said. */
  readonly failures: ReadonlyMap<string, readonly string[]>;
}

function propertyTests(): readonly string[] {
  return globSync(GLOB).filter((file) => readFileSync(file, 'utf8').includes("from 'fast-check'"));
}

async function round(files: readonly string[], seed: number): Promise<Round> {
  let passed = 0;
  const failures = new Map<string, string[]>();
  const options = {
    files,
    concurrency: availableParallelism(),
    timeout: FILE_TIMEOUT_MS,
    execArgv: [`--import=${PRELOAD}`],
    argv: [`--fuzz-seed=${seed}`],
  };
  for await (const { type, data } of run(options)) {
    if (type === 'test:pass') passed += 1;
    if (type !== 'test:fail') continue;
    const { file = 'a file that did not start', name, details } = data;
    failures.set(file, [...(failures.get(file) ?? []), `${name}\n${inspect(details.error.cause)}`]);
  }
  return { passed, failures };
}

function tell({ failures }: Round, seed: number): void {
  for (const [file, texts] of failures) {
    for (const text of texts) console.error(`\n✖ ${text}`);
    console.error(`\nonce more: npm run fuzz -- --seed ${seed} ${file}`);
  }
}

function numberOf(option: 'minutes' | 'seed', text: string): number {
  const number = Number(text);
  if (text !== '' && number >= 0) return number;
  console.error(`--${option} must be a number, got "${text}"`);
  process.exit(2);
}

const files = positionals.length > 0 ? positionals : propertyTests();
const endMs = performance.now() + numberOf('minutes', values.minutes) * 60_000;
let isLast = false;
while (!isLast) {
  const startedMs = performance.now();
  const seed = values.seed === undefined ? randomInt(2 ** 31) : numberOf('seed', values.seed);
  const outcome = await round(files, seed);
  const seconds = Math.round((performance.now() - startedMs) / 1_000);
  console.log(`seed ${seed}: ${outcome.passed} tests of ${files.length} files passed in ${seconds} s`);
  tell(outcome, seed);
  if (outcome.failures.size > 0 || outcome.passed === 0) process.exitCode = 1;
  isLast = values.seed !== undefined || process.exitCode === 1 || performance.now() >= endMs;
}
