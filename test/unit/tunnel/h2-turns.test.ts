import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { SendingStream } from '../../../src/tunnel/h2-sender.ts';
import { H2Turns } from '../../../src/tunnel/h2-turns.ts';

function sendingStream(id: number): SendingStream {
  return {
    id,
    window: 0,
    outbox: undefined,
    hasEnded: false,
    hasTrailers: false,
    isBlocked: false,
    isReady: false,
    turnBefore: undefined,
    turnAfter: undefined,
    flushed: () => {},
  };
}

/** Everything that waits, taken out from the front. */
function drain(turns: H2Turns): readonly number[] {
  const ids: number[] = [];
  for (let { first } = turns; first !== undefined; { first } = turns) {
    ids.push(first.id);
    turns.remove(first);
  }
  return ids;
}

const step = fc.record({ isAdded: fc.boolean(), id: fc.nat(5) });

test('streams have their turns in the order they came, each once, whichever leave meanwhile', () => {
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const turns = new H2Turns();
      const streams = Array.from({ length: 6 }, (_, id) => sendingStream(id));
      let waiting: readonly number[] = [];
      for (const { isAdded, id } of steps) {
        const stream = streams[id] ?? assert.fail();
        if (isAdded) turns.add(stream);
        else turns.remove(stream);
        if (!isAdded) waiting = waiting.filter((one) => one !== id);
        else if (!waiting.includes(id)) waiting = [...waiting, id];
        assert.equal(turns.first?.id, waiting[0]);
        assert.deepEqual(
          streams.filter(({ isReady }) => isReady).map((one) => one.id),
          waiting.toSorted((a, b) => a - b),
        );
      }
      assert.deepEqual(drain(turns), waiting);
    }),
  );
});
