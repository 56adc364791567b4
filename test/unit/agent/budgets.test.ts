import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parseBudgetFile } from '../../../src/agent/budget-file.ts';
import { type BudgetedPod, Budgets, type BudgetTable } from '../../../src/agent/budgets.ts';
import type { LogFields, Logger } from '../../../src/base/log.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const STANDARD = { connections: 100, handshakesPerSecond: 10, bufferedBytes: 1 << 20, loopShare: 1 };

function pod(name: string, annotation?: string): BudgetedPod {
  const annotations = annotation === undefined ? {} : { annotations: { 'culvert.io/budget': annotation } };
  return { uid: `uid-${name}`, name, namespace: 'shop', serviceAccount: 'web', ...annotations };
}

class World implements Disposable {
  readonly lines: { readonly message: string; readonly fields: LogFields }[] = [];
  readonly tables: BudgetTable[] = [];
  readonly clock = new FakeClock();
  readonly budgets: Budgets;
  readonly file: string;
  readonly #folder = mkdtempSync(join(tmpdir(), 'culvert-budgets-'));

  constructor(content?: string) {
    this.file = join(this.#folder, 'budgets.yaml');
    if (content !== undefined) writeFileSync(this.file, content);
    const say = (message: string, fields: LogFields = {}): void => void this.lines.push({ message, fields });
    const log: Logger = { error: say, warn: say };
    const budgetsPath = content === undefined ? undefined : this.file;
    const onChange = (table: BudgetTable): void => void this.tables.push(table);
    this.budgets = new Budgets({ budget: STANDARD, budgetsPath }, { clock: this.clock, log, onChange });
  }

  /** The file is written anew, and time passes until it is looked at. */
  rewrite(content: string): void {
    writeFileSync(this.file, content);
    this.clock.advance(60_000);
  }

  connectionsOf(name: string): number | undefined {
    const table = this.tables.at(-1);
    return (new Map(table?.byPod).get(`uid-${name}`) ?? table?.standard)?.connections;
  }

  [Symbol.dispose](): void {
    this.budgets[Symbol.dispose]();
    rmSync(this.#folder, { recursive: true });
  }
}

const FILE = `defaults: {connections: 50}
workloads:
  - {namespace: shop, pod: web-1, connections: 7}
  - {namespace: shop, serviceAccount: web, loop: 25%}
`;

test('the entry of the file for a pod beats its annotation, and that the defaults of the file', () => {
  using world = new World(FILE);
  world.budgets.serve([pod('web-0'), pod('web-1', 'connections=20'), pod('web-2', 'connections=20')]);
  assert.deepEqual(
    [0, 1, 2].map((at) => world.connectionsOf(`web-${at}`)),
    [50, 7, 20],
  );
  assert.equal(new Map(world.tables.at(-1)?.byPod).get('uid-web-2')?.loopShare, 0.25);
});

test('an absurd annotation is refused whole and said once; the pod has the standard budget', () => {
  using world = new World();
  for (let i = 0; i < 3; i++) world.budgets.serve([pod('web-0', 'connections=5,loop=4000%'), pod('web-1', 'loop=5%')]);
  assert.equal(world.connectionsOf('web-0'), STANDARD.connections);
  assert.equal(world.lines.length, 1);
  const { reason, pod: named, error } = world.lines[0]?.fields ?? {};
  assert.deepEqual([reason, named], ['CV-BUDGET-INVALID', 'shop/web-0']);
  assert.match(String(error), /loop must be a share from 1% to 100%, got "4000%"/);
});

test('nobody is told what has not changed', () => {
  using world = new World();
  for (let i = 0; i < 3; i++) world.budgets.serve([pod('web-0', 'connections=5')]);
  world.budgets.serve([pod('web-0')]);
  assert.equal(world.tables.length, 2);
});

test('a changed file holds at once, a bad one is refused whole with its line and the last good one stays', () => {
  using world = new World('defaults: {connections: 50}');
  world.budgets.serve([pod('web-0')]);
  world.rewrite('defaults: {connections: 40}');
  assert.equal(world.connectionsOf('web-0'), 40);
  world.rewrite('defaults:\n  connections: 30\n  loop: 400%\n');
  assert.equal(world.connectionsOf('web-0'), 40);
  const { reason, error } = world.lines.at(-1)?.fields ?? {};
  assert.equal(reason, 'CV-BUDGET-INVALID');
  assert.match(String(error), /budgets\.yaml:3:9: loop must be a share from 1% to 100%, got "400%"/);
});

const mistakes: readonly (readonly [content: string, message: RegExp])[] = [
  ['workloads:\n  - connections: 5\n', /f:2:5: mandatory field "namespace" is missing/],
  ['workloads:\n  - {namespace: shop, cpu: 5}\n', /f:2:23: unknown field "cpu"/],
  ['defaults: {connections: 0}', /f:1:\d+: connections must be/],
  ['defaults: {buffers: 64}', /f:1:\d+: buffers must be a size/],
  ['defaults: {handshakes: [1]}', /f:1:\d+: handshakes is no text and no number/],
  ['default: {}', /f:1:1: unknown field "default"/],
  ['workloads: {}', /f:1:12: expected a list/],
  ['- 5', /f:1:1: expected a mapping/],
  ['defaults: {connections: 5', /f:1:/],
];
for (const [content, message] of mistakes) {
  test(`a file with ${JSON.stringify(content)} is refused with its place`, () => {
    assert.throws(() => parseBudgetFile(content, 'f'), { code: 'CV-BUDGET-INVALID', message });
  });
}

test('a file that says nothing is {}; an empty one is refused', () => {
  assert.deepEqual(parseBudgetFile('{}', 'f'), { defaults: {}, workloads: [] });
  for (const empty of ['', '# nothing\n']) {
    assert.throws(() => parseBudgetFile(empty, 'f'), {
      message: 'f:1:1: the file is empty; write "{}" for no budgets',
    });
  }
});
