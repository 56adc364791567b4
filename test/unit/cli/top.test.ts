import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { UsageView } from '../../../src/agent/admin/views.ts';
import { run } from '../../../src/cli/program.ts';
import type { Terminal } from '../../../src/cli/terminal.ts';
import { topRows } from '../../../src/cli/top-rows.ts';
import type { WorkloadUse } from '../../../src/telemetry/workload-use.ts';
import { use } from '../telemetry/use-fixture.ts';
import { culvert, fakeAgent } from './cli-fixture.ts';

const bounded = { timeout: 60_000 };

function view(atMs: number, uses: Readonly<Record<string, Partial<WorkloadUse>>>): UsageView {
  const workloads = Object.entries(uses).map(([pod, numbers]) => {
    const lane = pod === 'busy' ? ('greedy' as const) : ('common' as const);
    return { ...use(pod, numbers), namespace: 'shop', pod, lane };
  });
  return { atMs, workloads };
}

/** An agent whose numbers grow by the second: each look finds one more of them passed. */
function growing() {
  let looks = 0;
  return fakeAgent({
    get '/usage'() {
      looks += 1;
      return view(looks * 1_000, {
        busy: {
          connections: looks * 2_000,
          openConnections: 7,
          loopSeconds: looks * 0.75,
          bufferedBytes: 4_096,
          heldTurns: looks * 5,
        },
        quiet: { receivedBytes: looks * 2_048, sentBytes: looks * 10, handshakes: looks },
      });
    },
  });
}

test('rates are of the time between two looks, and the busiest comes first', () => {
  const before = view(5_000, { a: { connections: 10, loopSeconds: 1 }, b: { connections: 5, loopSeconds: 1 } });
  const now = view(7_000, { a: { connections: 30, loopSeconds: 1.2 }, b: { connections: 6, loopSeconds: 2 } });
  const rows = topRows(before, now, 'cpu');
  assert.deepEqual(
    rows.map(({ workload, newPerSecond, cpu }) => [workload, newPerSecond, Math.round(cpu * 10)]),
    [
      ['shop/b', 0.5, 5],
      ['shop/a', 10, 1],
    ],
  );
  assert.deepEqual(
    topRows(before, now, 'new').map(({ workload }) => workload),
    ['shop/a', 'shop/b'],
  );
});

test('a pod that is new has done all of it since, and one that began anew nothing less than that', () => {
  const rows = topRows(
    view(0, { a: { connections: 50 } }),
    view(1_000, { a: { connections: 2 }, b: { connections: 4 } }),
    'cpu',
  );
  assert.deepEqual(
    rows.map(({ newPerSecond }) => newPerSecond),
    [0, 4],
  );
});

test('two looks at the same moment have no rates', () => {
  assert.equal(topRows(view(5, {}), view(5, { a: { connections: 4 } }), 'cpu')[0]?.newPerSecond, 0);
});

test('--once prints one plain table', bounded, async () => {
  await using agent = await growing();
  const { code, out } = await agent.ask(['top', '--once', '--interval', '200ms']);
  assert.equal(code, 0);
  assert.equal(
    out,
    `WORKLOAD     CPU     LANE     CONNS   NEW/S   IN/S      OUT/S   BUFFERED   WAITS/S   TLS/S   TLS PENDING
shop/busy    75.0%   greedy   7       2000    0 B       0 B     4.0 KiB    5.0       0       0
shop/quiet   0.0%    common   0       0       2.0 KiB   10 B    0 B        0         1.0     0
`,
  );
});

test('--once --output json prints the rows, and --sort and --namespace hold', bounded, async () => {
  await using agent = await growing();
  const argv = ['top', '--once', '--interval', '200ms', '--output', 'json', '--sort', 'in'];
  const rows = JSON.parse((await agent.ask([...argv, '--namespace', 'shop'])).out) as { workload: string }[];
  assert.deepEqual(
    rows.map(({ workload }) => workload),
    ['shop/quiet', 'shop/busy'],
  );
  assert.deepEqual(JSON.parse((await agent.ask([...argv, '--namespace', 'other'])).out), []);
});

test('help has examples, and a bad interval or sort key is wrong usage', bounded, async () => {
  const { out } = await culvert(['top', '--help']);
  assert.match(out, /\$ culvert top --once --output json/);
  for (const bad of [
    ['--interval', '0s'],
    ['--interval', 'soon'],
    ['--sort', 'beauty'],
  ]) {
    const { code, err } = await culvert(['top', ...bad]);
    assert.equal(code, 2);
    assert.match(err, /from 200ms to 1h|Allowed choices/);
  }
});

/** A terminal on which somebody presses keys when something has been drawn. */
function terminalWithKeys(onDraw: (text: string, press: (key: string) => void) => void) {
  let pressed: (key: string) => void = () => {};
  const state = { out: '', isRaw: false };
  const terminal: Terminal = {
    env: { NO_COLOR: '1' },
    isTty: true,
    rows: 24,
    readKeys: (onKey) => {
      pressed = onKey;
      state.isRaw = true;
      return { [Symbol.dispose]: () => void (state.isRaw = false) };
    },
    out: (text) => {
      state.out += text;
      queueMicrotask(() => onDraw(text, (key) => pressed(key)));
    },
    err: (text) => void (state.out += text),
    nowMs: () => 0,
  };
  return { terminal, state };
}

test('on a terminal the table is drawn over itself, keys sort it, q gives the screen back', bounded, async () => {
  await using agent = await growing();
  const orders: string[] = [];
  const { terminal, state } = terminalWithKeys((text, press) => {
    const first = /shop\/(busy|quiet)/.exec(text)?.[1];
    if (first === undefined) return;
    orders.push(first);
    press(first === 'busy' ? 'i' : 'q');
  });
  const argv = ['top', '--interval', '200ms', '--admin', agent.admin];
  assert.equal(await run(argv, { version: '1', terminal, roles: () => Promise.resolve([]) }), 0);
  assert.deepEqual(orders, ['busy', 'quiet']);
  assert.ok(state.out.startsWith('\u001b[?1049h') && state.out.endsWith('\u001b[?1049l'));
  // A line that is longer than the terminal would take two, and push the first ones out.
  assert.ok(state.out.indexOf('\u001b[?7l') < state.out.indexOf('WORKLOAD'));
  assert.ok(state.out.lastIndexOf('\u001b[?7h') > state.out.lastIndexOf('WORKLOAD'));
  assert.equal(state.isRaw, false);
});

test(
  'Ctrl-C ends it before the first numbers too, and an agent that is gone leaves no broken screen',
  bounded,
  async () => {
    const agent = await growing();
    const argv = ['top', '--interval', '200ms', '--admin', agent.admin];
    const early = terminalWithKeys((text, press) => {
      if (text.includes('Looking')) press('\u0003');
    });
    const options = { version: '1', roles: () => Promise.resolve([]) };
    assert.equal(await run(argv, { ...options, terminal: early.terminal }), 0);
    await agent[Symbol.asyncDispose]();
    const late = terminalWithKeys(() => {});
    assert.equal(await run(argv, { ...options, terminal: late.terminal }), 69);
    assert.match(late.state.out, /\[\?1049l.*cannot reach an agent/s);
    assert.equal(late.state.isRaw, false);
  },
);
