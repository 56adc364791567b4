/** Inbound HBONE, port 15008: tunnels of other nodes, and the CONNECT streams in them. */
import type tls from 'node:tls';
import { MeshError, toMeshError } from '../base/errors.ts';
import { reasonOf } from '../base/reasons.ts';
import { SlotMap } from '../base/slot-map.ts';
import type { InboundVerdict } from '../model/verdict.ts';
import type { Arrival } from '../sys/arrivals.ts';
import { H2Session } from '../tunnel/h2-session.ts';
import type { H2Stream } from '../tunnel/h2-stream.ts';
import { parseForwardedHost } from '../wire/forwarded.ts';
import type { RequestHead } from '../wire/h2-head.ts';
import { authorityProblem, parseHboneAuthority } from '../wire/hbone.ts';
import { encodeProxyV2 } from '../wire/proxy-v2.ts';
import { answerFields, GONE_ANSWER, newResumeToken, readResumeRequest } from '../wire/resume.ts';
import { Handshakes } from './handshakes.ts';
import { hboneQuestion, isPortable, short } from './hbone-question.ts';
import type { HboneQuestion } from './inheritance.ts';
import { Offenders } from './offenders.ts';
import { refusalOf } from './operator-text.ts';
import type { Ends, PodContext } from './pod-context.ts';
import { ResumableTunnel } from './resumable-tunnel.ts';
import { serveResume } from './serve-resume.ts';

type Accept = Extract<InboundVerdict, { kind: 'accept' }>;

/** One for all: peers that mean harm make thousands of it. */
const GAVE_UP = new MeshError('CV-TUNNEL-CLOSED', 'the client gave up before it was answered');

/** One accepted tunnel: who is at the other end, proved by its certificate. */
interface TunnelPeer extends Ends {
  readonly identity?: string | undefined;
  /** Streams in it can leave it for another. */
  isResuming?: boolean;
}

interface Tunnel {
  readonly session: H2Session;
  readonly peer: TunnelPeer;
}

export class HboneServer {
  readonly #context: PodContext;
  readonly #offenders: Offenders;
  readonly #handshakes: Handshakes;
  /** Oldest first, by their number. */
  readonly #tunnels = new SlotMap<number, Tunnel>();
  #served = 0;
  /** Sockets of tunnels: they outlive their session by the time its last frames take. */
  #openSockets = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  #isStopping = false;

  constructor(context: PodContext, onAttack: (isNew: boolean) => void) {
    this.#context = context;
    this.#offenders = new Offenders(context.deps.clock, onAttack);
    this.#handshakes = new Handshakes(context, this.#offenders, {
      secured: ({ socket, peerIdentity }, ends) => this.#serve(socket, { ...ends, identity: peerIdentity }),
      refused: (ends, error) => {
        this.#refused(ends, error);
        this.#tellEmpty();
      },
    });
  }

  get tunnelCount(): number {
    return this.#tunnels.size;
  }

  /** Those whose clients will open others when they have to leave them. */
  get resumingCount(): number {
    const tunnels = [...this.#tunnels.values()];
    return tunnels.filter(({ session, peer }) => session.activeStreams > 0 && peer.isResuming === true).length;
  }

  /** In progress, or waited for. */
  get handshakeCount(): number {
    return this.#handshakes.count;
  }

  /** Takes over what was accepted. */
  accept(arrival: Arrival): void {
    const ends = this.#context.endsNamed(arrival.ends, arrival.fd);
    if (ends === undefined || this.#isStopping) {
      arrival.close();
      return;
    }
    try {
      const { maxTunnels } = this.#context.settings;
      if (this.#tunnels.size >= maxTunnels) this.#dropIdleTunnel(maxTunnels);
      this.#handshakes.accept(arrival, ends);
    } catch (error) {
      arrival.close();
      this.#refused(ends, error);
    }
  }

  /** Streams in progress, and those that peers open before they hear of it, go on; so do handshakes in progress. */
  goaway(): void {
    this.#isStopping = true;
    for (const { session } of this.#tunnels.values()) session.goaway();
  }

  /** Takes new tunnels again; those that were told to end do. */
  reopen(): void {
    this.#isStopping = false;
  }

  close(error: MeshError): void {
    this.#handshakes.close(error);
    for (const { session } of [...this.#tunnels.values()]) session.destroy(error);
  }

  /** Resolves when no tunnel and no handshake is left. */
  async empty(): Promise<void> {
    if (!this.#isBusy) return;
    this.#idle ??= Promise.withResolvers();
    await this.#idle.promise;
  }

  get #isBusy(): boolean {
    return this.handshakeCount + this.#openSockets > 0;
  }

  #tellEmpty(): void {
    if (this.#isBusy) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** One peer with many idle tunnels must not keep the others out: the oldest idle one makes room. */
  #dropIdleTunnel(maxTunnels: number): void {
    const error = new MeshError('CV-LIMIT', `this pod already serves ${maxTunnels} tunnels`);
    const idle = this.#tunnels.values().find(({ session }) => session.activeStreams === 0);
    if (idle === undefined) throw error;
    idle.session.destroy(error);
  }

  #serve(secured: tls.TLSSocket, peer: TunnelPeer): void {
    const { settings, deps } = this.#context;
    const id = ++this.#served;
    const session: H2Session = new H2Session({
      socket: secured,
      role: 'server',
      settings: settings.http2Server,
      clock: deps.clock,
      share: this.#context.share,
      handlers: {
        onStream: (stream, request) => {
          this.#connect(session, stream, request, peer).catch((error: unknown) => {
            this.#context.refusalFor(error);
            stream.destroy(toMeshError(error));
          });
        },
        onClose: (error) => {
          this.#tunnels.delete(id);
          if (error !== undefined) this.#sessionFailed(peer, error);
        },
      },
    });
    this.#tunnels.set(id, { session, peer });
    this.#openSockets += 1;
    secured.once('close', () => {
      this.#openSockets -= 1;
      this.#tellEmpty();
    });
    deps.revocation?.watch(secured, (error) => session.destroy(error));
    if (this.#isStopping) session.goaway();
  }

  /** Serves one stream. Rejects only by a defect. */
  async #connect(session: H2Session, stream: H2Stream, request: RequestHead, tunnel: TunnelPeer): Promise<void> {
    const authority = short(request.authority ?? '');
    const oddity = oddityOf(request, authority);
    if (oddity !== undefined) {
      this.#deny(stream, tunnel, oddity);
      session.oddRequest();
      return;
    }
    const question = hboneQuestion(request, authority, tunnel.identity);
    let isResumable: boolean;
    try {
      const resume = readResumeRequest(request.headers);
      tunnel.isResuming ||= resume.kind !== 'none';
      isResumable = resume.kind === 'offer';
      if (resume.kind === 'resume') return await serveResume(this.#context, stream, resume.token, question);
    } catch (error) {
      this.#context.refusalFor(error);
      this.#deny(stream, tunnel, toMeshError(error));
      return;
    }
    await this.#begin(stream, request, tunnel, { question, isResumable });
  }

  /** A new connection. Rejects only by a defect. */
  async #begin(
    stream: H2Stream,
    request: RequestHead,
    tunnel: TunnelPeer,
    { question, isResumable }: { readonly question: HboneQuestion; readonly isResumable: boolean },
  ): Promise<void> {
    const { deps } = this.#context;
    const id = this.#context.nextId();
    // After all frames that came with it: opening and resetting at once costs the peer nothing, and us no verdict.
    await Promise.resolve();
    if (stream.isClosed) {
      this.#context.share.enter();
      this.#context.refuse({
        start: this.#start(id, question.authority, request, tunnel),
        refusal: refusalOf(GAVE_UP),
      });
      return;
    }
    const verdict = await this.#context.judge({
      connectionId: id,
      peer: tunnel.peer,
      local: tunnel.local,
      hbone: question,
    });
    const start = this.#start(id, question.authority, request, tunnel);
    if (verdict.kind === 'refuse') {
      this.#context.refuse({ start, ...verdict });
      stream.respond(reasonOf(verdict.refusal.code).status, {}, { endStream: true });
      return;
    }
    const token = isResumable && isPortable(question) ? newResumeToken(deps.random) : undefined;
    const resumable =
      token === undefined
        ? undefined
        : new ResumableTunnel(this.#context, { id, token, wayBack: { kind: 'wait', question }, from: stream });
    const downstream = resumable?.stream ?? stream;
    const connection = this.#context.open({ ...start, labels: verdict.labels }, downstream, this.#context.release);
    try {
      // Nor a connection to the application.
      if (stream.isClosed) throw GAVE_UP;
      const preface = verdict.proxyHeader && encodeProxyV2(verdict.proxyHeader);
      const app = await this.#context.dial(verdict.address, verdict.sourceIp);
      if (!connection.isOver) {
        stream.respond(200, responseHeaders(verdict, token), { endStream: false });
        if (preface !== undefined) app.write(preface);
      }
      connection.join(this.#context.streamOf(app), resumable);
    } catch (error) {
      const failure = toMeshError(error);
      this.#context.refusalFor(failure);
      if (!connection.isOver) stream.respond(reasonOf(failure.code).status, {}, { endStream: true });
      connection.close(failure);
    }
  }

  #start(id: string, authority: string, request: RequestHead, { peer, local }: TunnelPeer) {
    const forwardedHost = parseForwardedHost(request.headers.get('forwarded')?.[0] ?? '');
    return {
      id,
      direction: 'inbound' as const,
      protocol: 'HBONE' as const,
      src: peer,
      dst: local,
      hboneAuthority: authority,
      ...(forwardedHost !== undefined && { originalDst: forwardedHost }),
    };
  }

  #deny(stream: H2Stream, { peer, local }: TunnelPeer, error: MeshError): void {
    this.#context.refuse({
      start: { id: this.#context.nextId(), direction: 'inbound', protocol: 'HBONE', src: peer, dst: local },
      refusal: refusalOf(error),
    });
    const fields = error.fields['isGone'] === true ? GONE_ANSWER : {};
    stream.respond(reasonOf(error.code).status, fields, { endStream: true });
  }

  #refused(ends: Ends, caught: unknown): void {
    this.#context.refuse({
      start: { id: '', direction: 'inbound', protocol: 'HBONE', src: ends.peer, dst: ends.local },
      refusal: this.#context.refusalFor(caught),
    });
  }

  /** Streams in it have lines of their own; abuse gets one more, so that somebody can find the peer. */
  #sessionFailed({ peer, identity }: TunnelPeer, error: MeshError): void {
    const fields = { peer: peer.ip, identity, reason: error.code, error: error.message };
    const { log } = this.#context.deps;
    if (!isOffence(error)) {
      log.debug?.('tunnel closed', fields);
      return;
    }
    const delayMs = this.#offenders.cut(peer.ip);
    if (error.code === 'CV-TUNNEL-ABUSE') log.warn?.('tunnel closed for abuse', { ...fields, delayMs });
    else log.debug?.('tunnel closed', { ...fields, delayMs });
  }
}

/** Why no peer that speaks HBONE makes this request, before anybody is asked about it. */
function oddityOf({ method }: RequestHead, authority: string): MeshError | undefined {
  if (method !== 'CONNECT') return new MeshError('CV-METHOD', `expected method CONNECT, got ${short(method)}`);
  if (parseHboneAuthority(authority) === undefined) return new MeshError('CV-AUTHORITY', authorityProblem(authority));
  return undefined;
}

/** The peer broke the protocol or a limit of it. A session that ended before it began is none: it has proved nothing. */
function isOffence({ code, fields }: MeshError): boolean {
  return code === 'CV-TUNNEL-ABUSE' || (code === 'CV-TUNNEL-HTTP2' && fields['isHandshake'] !== true);
}

function responseHeaders({ responseBaggage }: Accept, token: string | undefined): Readonly<Record<string, string>> {
  return {
    ...(responseBaggage !== undefined && { baggage: responseBaggage }),
    ...(token !== undefined && answerFields(token, { isResumed: false })),
  };
}
