/** What came of a request, in words. */
import type { Outcome } from '../app.ts';

export function sees(outcome: Outcome, clientIp: string): boolean {
  return outcome.isAnswered && outcome.answer.client === clientIp;
}

export function describeOutcome(client: string, url: string, outcome: Outcome): string {
  if (!outcome.isAnswered) return `${client}: GET ${url} failed: ${outcome.error}`;
  const { pod, client: seen, pid } = outcome.answer;
  return `${client}: GET ${url} answered by ${pod} (pid ${pid}): "I see ${seen}"`;
}
