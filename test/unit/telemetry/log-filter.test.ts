import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { extendFilter, formatFilter, levelOf, startFilter } from '../../../src/telemetry/log-filter.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const START = 'hickory_server::server=off';

const levels: readonly { filter: string; scope: string; want: string; claim: string }[] = [
  { claim: 'no directive means info', filter: '', scope: 'proxy', want: 'info' },
  { claim: 'a bare level is the default of all', filter: 'debug', scope: 'proxy', want: 'debug' },
  { claim: 'a target overrides the default', filter: 'access=debug,info', scope: 'access', want: 'debug' },
  { claim: 'a target leaves others alone', filter: 'access=debug,info', scope: 'proxy', want: 'info' },
  { claim: 'a colon separates as well as an equals sign', filter: 'access:debug,info', scope: 'access', want: 'debug' },
  { claim: 'the module prefix is accepted', filter: 'ztunnel::xds=trace', scope: 'xds', want: 'trace' },
  { claim: 'the module prefix is accepted with a colon', filter: 'ztunnel::xds:trace', scope: 'xds', want: 'trace' },
  { claim: 'the module prefix may be left out', filter: 'xds=trace', scope: 'xds', want: 'trace' },
  { claim: 'the crate alone means every module of it', filter: 'ztunnel=warn,error', scope: 'xds', want: 'warn' },
  {
    claim: 'the crate alone does not mean the access log',
    filter: 'ztunnel=warn,error',
    scope: 'access',
    want: 'error',
  },
  {
    claim: 'a prefix that is no module boundary does not match',
    filter: 'prox=trace,info',
    scope: 'proxy',
    want: 'info',
  },
  { claim: 'without a default the rest is off', filter: 'access=debug', scope: 'proxy', want: 'off' },
  { claim: 'the later of two directives wins', filter: 'access=debug,access=warn', scope: 'access', want: 'warn' },
  {
    claim: 'a module of ztunnel means the part that does its work',
    filter: 'inpod=debug',
    scope: 'capture',
    want: 'debug',
  },
  { claim: 'so it does with its prefix', filter: 'ztunnel::rbac=debug,info', scope: 'state', want: 'debug' },
  { claim: 'and for what is within it', filter: 'ztunnel::inpod::statemanager=trace', scope: 'capture', want: 'trace' },
  {
    claim: 'a module within a part makes all of it as loud',
    filter: 'ztunnel::proxy::outbound=debug,info',
    scope: 'proxy',
    want: 'debug',
  },
  { claim: 'a module within a part never silences it', filter: 'proxy::h2=off,info', scope: 'proxy', want: 'info' },
  { claim: 'a target without a level means all of it', filter: 'access,info', scope: 'access', want: 'trace' },
];

for (const { filter, scope, want, claim } of levels) {
  test(claim, () => assert.equal(levelOf(startFilter(filter), scope), want));
}

test('the filter is printed with the longest target first and the default last', () => {
  const filter = extendFilter(startFilter(''), 'rbac=off,access=debug');
  assert.equal(formatFilter(filter), `${START},access=debug,rbac=off,info`);
});

for (const bad of ['access=loud', '=debug', 'a=b=debug', 'spaces in=info', 'a[b]=info']) {
  test(`"${bad}" is refused as a filter`, () => {
    assert.throws(() => startFilter(bad), { name: 'MeshError', code: 'CV-CONFIG' });
  });
}

test('any text is a filter that reads back as itself, or a MeshError', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: fc.constantFrom(...'acesdebugofinwrtx=:,:: _9é\n'.split('')), maxLength: 40 }),
      (text) => {
        try {
          const filter = startFilter(text);
          assert.equal(formatFilter(startFilter(formatFilter(filter))), formatFilter(filter));
        } catch (error) {
          assert(error instanceof MeshError, String(error));
        }
      },
    ),
  );
});

test('a level change reaches a logger that was handed out before', () => {
  const lines: string[] = [];
  const root = rootLogger({ sink: { write: (line) => lines.push(line) }, clock: new FakeClock(), format: 'text' });
  const log = root.scope('proxy');
  log.debug?.('hidden');
  root.change('proxy=debug', false);
  log.debug?.('now visible');
  root.change('', true);
  log.debug?.('hidden again');
  assert.deepEqual(
    lines.map((line) => line.split('\t').slice(1, 4)),
    [
      ['info', 'admin', `new log filter is ${START},proxy=debug,info`],
      ['debug', 'proxy', 'now visible'],
      ['info', 'admin', `new log filter is ${START},info`],
    ],
  );
});

test('a filter that cannot be read changes nothing', () => {
  const root = rootLogger({ sink: { write: () => undefined }, clock: new FakeClock(), format: 'text' });
  assert.throws(() => root.change('access=debug,proxy=loud', false), MeshError);
  assert.equal(root.current(), `${START},info`);
});
