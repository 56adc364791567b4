/** Many frames that come in one record: dealt with in turns, as the connections that brought them are. */
import assert from 'node:assert/strict';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import type { LoopTime } from '../../../src/sys/loop-time.ts';
import { systemClock } from '../../../src/sys/system-clock.ts';
import { H2Session } from '../../../src/tunnel/h2-session.ts';
import { SERVER_SETTINGS } from '../../../src/tunnel/h2-settings.ts';
import type { LoopShare } from '../../../src/tunnel/loop-share.ts';
import { LoopShares } from '../../../src/tunnel/loop-shares.ts';
import { FRAME, PREFACE } from '../../../src/wire/h2-protocol.ts';
import { frame, headersFrames, settingsAckFrame, settingsFrame } from '../../../src/wire/h2-write.ts';
import { HpackEncoder } from '../../../src/wire/hpack-encoder.ts';

const LIMITS = { quantumMs: 0.5, recentMs: 50 } as const;
const WORK_MS = 0.2;
const STREAMS = 150;
const bounded = { timeout: 60_000 };

function connect(streamId: number): Uint8Array {
  const encoder = new HpackEncoder();
  encoder.field(':method', 'CONNECT');
  encoder.field(':authority', `10.0.0.1:${streamId}`);
  return headersFrames(streamId, encoder.finish(), false, 16_384);
}

const GREETING = Buffer.concat([PREFACE, settingsFrame([]), settingsAckFrame()]);
const RECORD = Buffer.concat(Array.from({ length: STREAMS }, (_, i) => connect(2 * i + 1)));
const AUTHORITIES = Array.from({ length: STREAMS }, (_, i) => `10.0.0.1:${2 * i + 1}`);

interface World extends Disposable {
  readonly loop: LoopShares;
  readonly share: LoopShare;
  /** The far end of the session. */
  readonly peer: Duplex;
  /** Of the streams that were opened, in their order. */
  readonly authorities: readonly string[];
  /** What came in them. */
  readonly octets: readonly number[];
  /** How much was done before somebody else had the loop. */
  readonly bursts: readonly number[];
}

/** A session for which each stream and each piece of its data is so much work, beside somebody who always wants the loop. */
function world(): World {
  let nowMs = 0;
  const time: LoopTime = { nowMs: () => nowMs, idleMs: () => 0 };
  const loop = new LoopShares({ time, clock: systemClock }, LIMITS);
  const [share, other] = [loop.open(), loop.open()];
  const [peer, socket] = duplexPair();
  const authorities: string[] = [];
  const octets: number[] = [];
  const bursts: number[] = [0];
  const work = (): void => {
    nowMs += WORK_MS;
    bursts.push((bursts.pop() ?? 0) + 1);
  };
  const session = new H2Session({
    socket,
    role: 'server',
    settings: SERVER_SETTINGS,
    clock: systemClock,
    share,
    handlers: {
      onStream: (stream, { authority }) => {
        work();
        authorities.push(authority ?? '');
        stream.open({
          onData: (chunk) => {
            work();
            octets.push(...chunk);
          },
          onEnd: () => {},
          onDrain: () => {},
          onClose: () => {},
        });
      },
      onClose: () => {},
    },
  });
  let isOver = false;
  const want = (): void => {
    other.enter();
    bursts.push(0);
    if (!isOver) setImmediate(want);
  };
  want();
  peer.resume();
  return {
    loop,
    share,
    peer,
    authorities,
    octets,
    bursts,
    [Symbol.dispose]() {
      isOver = true;
      session.destroy();
      peer.destroy();
    },
  };
}

test('frames of one record are dealt with in several turns, each once and in order', bounded, async () => {
  using here = world();
  here.peer.write(Buffer.concat([GREETING, RECORD]));
  while (here.authorities.length < STREAMS) await new Promise(setImmediate);
  assert.deepEqual(here.authorities, AUTHORITIES);
  assert.ok(Math.max(...here.bursts) <= 4, `${Math.max(...here.bursts)} of them at once`);
  assert.equal(here.share.bufferedBytes, 0);
});

test('so is data that comes in many small frames', bounded, async () => {
  using here = world();
  const sent = Array.from({ length: STREAMS }, (_, i) => i);
  const frames = sent.map((octet) => frame(FRAME.data, 0, 1, Uint8Array.of(octet)));
  here.peer.write(Buffer.concat([GREETING, connect(1), ...frames]));
  while (here.octets.length < sent.length) await new Promise(setImmediate);
  assert.deepEqual(here.octets, sent);
  assert.ok(Math.max(...here.bursts) <= 4, `${Math.max(...here.bursts)} of them at once`);
});

test('frames that wait for their turn are not lost when the peer ends, nor overtaken', bounded, async () => {
  using here = world();
  here.peer.write(Buffer.concat([GREETING, RECORD.subarray(0, 2_000)]));
  here.peer.write(RECORD.subarray(2_000, 3_000));
  here.peer.end(RECORD.subarray(3_000));
  while (here.authorities.length < STREAMS) await new Promise(setImmediate);
  assert.deepEqual(here.authorities, AUTHORITIES);
  assert.equal(here.share.bufferedBytes, 0);
});

test('frames that wait are forgotten with their session', bounded, async () => {
  using here = world();
  here.peer.write(Buffer.concat([GREETING, RECORD]));
  while (here.authorities.length === 0) await new Promise(setImmediate);
  assert.ok(here.authorities.length < STREAMS && here.share.bufferedBytes > 0);
  here.peer.destroy();
  while (here.share.bufferedBytes > 0) await new Promise(setImmediate);
});
