import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../../src/agent/settings/config.ts';
import { reportStart } from '../../../src/agent/start-report.ts';
import { rootLogger } from '../../../src/telemetry/logger.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function reported(env: Readonly<Record<string, string>>): string[] {
  const result = resolveConfig({ NODE_NAME: 'n1', LOCAL_XDS_PATH: 'm', CULVERT_PODS: 'p', ...env }, {});
  assert(result.ok);
  const lines: string[] = [];
  const sink = { write: (line: string) => void lines.push(line) };
  reportStart(result.config, '1.2.3', rootLogger({ sink, clock: new FakeClock(), format: 'text' }));
  return lines.map((line) => line.split('\t')[3] ?? '');
}

test('the log begins with build, limits and settings, in the words of ztunnel', () => {
  const [version = '', limit = '', config = '', ...rest] = reported({ ISTIO_META_ISTIO_VERSION: '1.31.0' });
  assert.match(version, /^version: version\.BuildInfo\{Version:"1\.2\.3", GitRevision:"[^"]*", RustVersion:"node v\d/);
  assert.match(
    version,
    /BuildProfile:"release", BuildStatus:"Clean", IstioVersion:"1\.31\.0", CryptoProvider:"openssl /,
  );
  assert.match(limit, /^file descriptor limit is \d+$/);
  assert.equal(config.startsWith('running with config: {"adminAddr":{"Localhost":[true,15000]}'), true, config);
  assert.deepEqual(rest, []);
});

test('settings that change nothing are named once', () => {
  const lines = reported({ INPOD_ENABLED: 'true', RUST_BACKTRACE: '1' });
  assert.equal(lines.at(-1), 'settings without effect here');
});
