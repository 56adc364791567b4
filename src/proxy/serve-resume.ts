/** A CONNECT that wants to go on with a stream that was suspended: found by its token, given to its owner alone. */
import { MeshError } from '../base/errors.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { answerFields, newResumeToken } from '../wire/resume.ts';
import type { HboneQuestion } from './inheritance.ts';
import type { PodContext } from './pod-context.ts';
import type { ResumableTunnel } from './resumable-tunnel.ts';
import { resumeConnection } from './resume.ts';

/** While a pod is taken over, its clients may be faster than the process that hands their streams to this one. */
const WAIT_MS = 5_000;
/** Others are asked again so often: where a stream turns up there is not known here. */
const ASK_AGAIN_MS = 200;

/**
 * Rejects with `CV-RESUME-UNKNOWN` or `CV-RESUME-IDENTITY`, or with what forbids the stream now; it is not answered then, and
 * what is parked stays.
 */
export async function serveResume(
  context: PodContext,
  stream: H2Stream,
  token: string,
  question: HboneQuestion,
): Promise<void> {
  const parked = await find(context, token, question);
  if (!parked.isOf(question)) throw notYours();
  // Who gave up meanwhile may ask once more.
  if (stream.isClosed) return;
  // Since it was found it may have left, with those that another process or thread takes.
  if (context.parked.get(token) !== parked) throw unknown('later');
  const next = newResumeToken(context.deps.random);
  stream.respond(200, answerFields(next, { isResumed: true }), { endStream: false });
  parked.attach(stream, next);
}

async function find(context: PodContext, token: string, question: HboneQuestion): Promise<ResumableTunnel> {
  const { parked, pod } = context;
  const { clock, elsewhere } = context.deps;
  const endMs = clock.monotonicMs() + WAIT_MS;
  for (;;) {
    const here = parked.get(token);
    if (here !== undefined) return here;
    parked.throwIfRefused(token);
    const found = (await elsewhere?.claim({ podUid: pod.uid, token, question })) ?? 'nowhere';
    if (found === 'foreign') throw notYours();
    if (typeof found === 'object') {
      await resumeConnection(context, undefined, found);
    } else if (parked.get(token) === undefined) {
      // It may have come while others were asked.
      const leftMs = endMs - clock.monotonicMs();
      const mayCome = found === 'later' && leftMs > 0;
      if (!mayCome || !(await parked.change(token, clock, Math.min(leftMs, ASK_AGAIN_MS)))) throw unknown(found);
    }
  }
}

function unknown(answer: 'later' | 'nowhere'): MeshError {
  return new MeshError('CV-RESUME-UNKNOWN', 'no suspended stream has this token', { isGone: answer === 'nowhere' });
}

function notYours(): MeshError {
  return new MeshError('CV-RESUME-IDENTITY', 'the token of a suspended stream belongs to another peer or destination');
}
