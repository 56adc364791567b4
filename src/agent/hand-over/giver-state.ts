/**
 * The agent that leaves, as a state machine: what each message, or the loss of the heir, means for its pods. Pure. A pod is
 * carried by exactly one process: here until its offer is accepted, by the heir from then on, and here again when the heir
 * is lost before it has committed.
 */
import type { StreamClaim } from '../../proxy/settings.ts';
import { commonVersion, type Request } from './protocol.ts';

export type GiverState =
  | { readonly kind: 'alone' }
  | {
      readonly kind: 'giving';
      /** Pods whose listeners the heir has, and connections of theirs. */
      readonly given: ReadonlySet<string>;
      /** The pod of which an offer waits for its acceptance: nobody carries what is offered for that moment. */
      readonly offered?: string;
    }
  | {
      readonly kind: 'left';
      /** The pod of which a claimed stream is on offer. */
      readonly offered?: string;
    };

export type GiverInput = Request | { readonly type: 'lost' };

export type GiverEffect =
  | { readonly kind: 'welcome'; readonly version: number }
  /** Says why, and ends the exchange. */
  | { readonly kind: 'refuse'; readonly reason: string }
  | { readonly kind: 'yield-servers' }
  | { readonly kind: 'tell' }
  | { readonly kind: 'offer'; readonly pod: string }
  | { readonly kind: 'offer-more'; readonly pod: string }
  | { readonly kind: 'offer-claimed'; readonly pod: string; readonly claim: StreamClaim }
  | { readonly kind: 'give'; readonly pod: string }
  /** Carry what is on offer of a pod. */
  | { readonly kind: 'keep'; readonly pod: string }
  /** Carry these pods again, with what is on offer. Servers too. */
  | { readonly kind: 'take-back'; readonly pods: readonly string[] }
  | { readonly kind: 'leave' };

export interface GiverStep {
  readonly state: GiverState;
  readonly effect?: GiverEffect;
}

export function giverStep(state: GiverState, input: GiverInput): GiverStep {
  switch (state.kind) {
    case 'alone':
      return input.type === 'hello' ? greeted(input) : refused(state, input);
    case 'giving':
      return giving(state, input);
    case 'left':
      return left(state, input);
  }
}

function greeted(hello: Extract<Request, { type: 'hello' }>): GiverStep {
  const version = commonVersion(hello);
  if (version === undefined) {
    return { state: { kind: 'alone' }, effect: refusal(`no common version with ${hello.min} to ${hello.max}`) };
  }
  return { state: { kind: 'giving', given: new Set() }, effect: { kind: 'welcome', version } };
}

function giving(state: Extract<GiverState, { kind: 'giving' }>, input: GiverInput): GiverStep {
  const { given, offered } = state;
  switch (input.type) {
    case 'yield-servers':
      return offered === undefined ? { state, effect: { kind: 'yield-servers' } } : refused(state, input);
    case 'inherit':
      return offered === undefined ? { state, effect: { kind: 'tell' } } : refused(state, input);
    case 'take':
      if (offered !== undefined || given.has(input.pod)) return refused(state, input);
      return { state: { ...state, offered: input.pod }, effect: { kind: 'offer', pod: input.pod } };
    case 'more':
      if (offered !== undefined || !given.has(input.pod)) return refused(state, input);
      return { state: { ...state, offered: input.pod }, effect: { kind: 'offer-more', pod: input.pod } };
    case 'claim':
      if (offered !== undefined || !given.has(input.pod)) return refused(state, input);
      return { state: { ...state, offered: input.pod }, effect: claimed(input) };
    case 'accept':
      if (offered !== input.pod) return refused(state, input);
      return { state: { kind: 'giving', given: new Set([...given, offered]) }, effect: { kind: 'give', pod: offered } };
    case 'commit':
      return offered === undefined ? { state: { kind: 'left' }, effect: { kind: 'leave' } } : refused(state, input);
    case 'hello':
      return refused(state, input);
    case 'lost': {
      const pods = new Set(offered === undefined ? given : [...given, offered]);
      return { state: { kind: 'alone' }, effect: { kind: 'take-back', pods: [...pods] } };
    }
  }
}

/** It still has streams whose clients may come to the heir. */
function left(state: Extract<GiverState, { kind: 'left' }>, input: GiverInput): GiverStep {
  const { offered } = state;
  if (input.type === 'claim' && offered === undefined) {
    return { state: { kind: 'left', offered: input.pod }, effect: claimed(input) };
  }
  if (input.type === 'accept' && offered === input.pod) {
    return { state: { kind: 'left' }, effect: { kind: 'give', pod: offered } };
  }
  if (input.type !== 'lost') return { state, effect: refusal('it has left the node already') };
  return { state: { kind: 'left' }, ...(offered !== undefined && { effect: { kind: 'keep', pod: offered } }) };
}

function claimed({ pod, claim }: Extract<Request, { type: 'claim' }>): GiverEffect {
  return { kind: 'offer-claimed', pod, claim };
}

/** Out of turn: the exchange ends, which is a loss of the heir and takes its pods back. */
function refused(state: GiverState, input: GiverInput): GiverStep {
  return input.type === 'lost' ? { state } : { state, effect: refusal(`${input.type} is out of turn`) };
}

function refusal(reason: string): GiverEffect {
  return { kind: 'refuse', reason };
}
