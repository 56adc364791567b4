/** (c) The same request in the mesh: TLS on one port, and still the client's own address. */
import { PORTS } from '../../../model/ports.ts';
import type { WireStream } from '../../lab/wiretap.ts';
import { readTlsRecords } from '../../lab/wiretap.ts';
import { describeStream } from '../evidence.ts';
import type { Report } from '../report.ts';
import type { Stage } from '../stage.ts';
import { describeOutcome, sees } from './outcome.ts';

export async function tunnel(stage: Stage, report: Report): Promise<void> {
  report.step('c', 'The same request in the mesh');
  const since = stage.tap.position;
  const request = 'basket?card=4222-2222-2222-2222';
  const shop = stage.app('shop');
  const outcome = await shop.get(stage.url('cart', request));
  const viaService = await shop.get(stage.serviceUrl(request));
  await stage.settleWire();

  const streams = stage.tap.streams(since).filter((stream) => stream.bytes.length > 0);
  report.claim('cart answers, and still sees the address of shop', sees(outcome, shop.pod.ip), [
    describeOutcome('shop', stage.url('cart', request), outcome),
  ]);
  const isTlsOnly = streams.length > 0 && streams.every((stream) => isTunnel(stream));
  const evidence = streams.map((stream) => describeStream(stream));
  report.claim(`the wire carries TLS records on port ${PORTS.hbone} and nothing else`, isTlsOnly, evidence);
  const readable = stage.tap.findClear(request).length;
  report.claim('the request cannot be read there', readable === 0, [
    `${readable} of ${streams.length} streams hold "${request}"`,
  ]);
  const isServed = viaService.isAnswered && viaService.answer.pod === 'cart';
  report.claim('a service address, which exists only in the mesh, leads to cart', isServed, [
    describeOutcome('shop', stage.serviceUrl(request), viaService),
  ]);
}

export function isOnTunnelPort(stream: WireStream): boolean {
  return stream.from.port === PORTS.hbone || stream.to.port === PORTS.hbone;
}

function isTunnel(stream: WireStream): boolean {
  return isOnTunnelPort(stream) && readTlsRecords(stream.bytes) !== undefined;
}
