/** gRPC statuses by name, and failures of calls as one `MeshError` that an operator can read. */
import { status } from '@grpc/grpc-js';
import { MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';

export type RpcStatus = Exclude<keyof typeof status, number>;

/** Longest text of a peer that is shown, characters. */
const MAX_TEXT = 500;

/** An error that a service answers with `rpcStatus`; `message` is sent to the caller. */
export function rpcRefusal(rpcStatus: RpcStatus, message: string): MeshError {
  return new MeshError('CV-RPC', message, { rpcStatus });
}

/** The gRPC status that `error` came with, or goes out with; `undefined` for an error of another origin. */
export function rpcStatusOf(error: unknown): RpcStatus | undefined {
  const name = error instanceof MeshError ? error.fields['rpcStatus'] : undefined;
  return typeof name === 'string' && isRpcStatus(name) ? name : undefined;
}

/** False for a call that never reached a server. */
export function wasConnected(error: unknown): boolean {
  return error instanceof MeshError && error.fields['isConnected'] !== false;
}

export interface CallFailure {
  readonly rpcStatus: RpcStatus;
  /** May come from the peer: it is cut and made printable. */
  readonly text: string;
  readonly isConnected: boolean;
}

/** A call that ended with another status than OK. */
export function callFailure(code: ReasonCode, peer: string, { rpcStatus, text, isConnected }: CallFailure): MeshError {
  const words = printable(text) || 'no reason given';
  return new MeshError(code, `${peer}: ${words} (${rpcStatus})`, { rpcStatus, isConnected });
}

export function statusName(code: number): RpcStatus {
  const name: unknown = status[code];
  return typeof name === 'string' && isRpcStatus(name) ? name : 'UNKNOWN';
}

function isRpcStatus(name: string): name is RpcStatus {
  return Number.isNaN(Number(name)) && name in status;
}

function printable(text: string): string {
  const clean = text.replaceAll(/[^\x21-\x7e]+/g, ' ').trim();
  return clean.length > MAX_TEXT ? `${clean.slice(0, MAX_TEXT)}…` : clean;
}
