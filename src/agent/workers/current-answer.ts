/** Answers of the main thread that no change has overtaken on their way. */
import { MeshError } from '../../base/errors.ts';
import type { Generation } from '../../model/generation.ts';

/** Answers in a row that a change overtook. */
const MAX_ATTEMPTS = 10;

/** Asks again while what the answer was made of has changed since: such an answer goes to `discard` and is never used. */
export async function currentAnswer<Answer extends { readonly generation: number }>(
  generation: Generation,
  ask: () => Promise<Answer>,
  discard: (answer: Answer) => void = () => {},
): Promise<Answer> {
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
    const answer = await ask();
    if (answer.generation === generation.current) return answer;
    discard(answer);
  }
  throw new MeshError('CV-LIMIT', `the mesh changed ${MAX_ATTEMPTS} times before a connection could be judged`);
}
