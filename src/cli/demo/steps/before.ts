/** (a) Before enrolment: plain TCP, readable by whoever sits between the nodes. */
import { formatFlow } from '../../lab/packet.ts';
import { hexRows } from '../evidence.ts';
import type { Report } from '../report.ts';
import type { Stage } from '../stage.ts';
import { describeOutcome, sees } from './outcome.ts';

const HEX_ROWS = 3;

export async function before(stage: Stage, report: Report): Promise<void> {
  report.step('a', 'Before: no mesh, plain TCP between the nodes');
  const request = 'basket?card=4111-1111-1111-1111';
  const outcome = await stage.app('shop').get(stage.url('cart', request));
  await stage.settleWire();
  report.claim(`cart answers shop and sees the address of shop`, sees(outcome, stage.lab.pod('shop').ip), [
    describeOutcome('shop', stage.url('cart', request), outcome),
  ]);
  const [clear] = stage.tap.findClear(request);
  const excerpt = clear === undefined ? [] : [formatFlow(clear), ...hexRows(clear.bytes, HEX_ROWS)];
  report.claim('a sniffer between the nodes reads the request', clear !== undefined, excerpt);
}
