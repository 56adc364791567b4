import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../src/base/errors.ts';
import { openNetns } from '../../../src/sys/netns.ts';
import { socketTcp } from '../../../src/sys/sockets.ts';

const OWN = '/proc/thread-self/ns/net';

test('a namespace that was closed is not entered through the descriptor that took its number', () => {
  const gone = openNetns(OWN);
  const number = gone.fd;
  gone[Symbol.dispose]();
  using other = openNetns(OWN);
  assert.equal(other.fd, number, 'the number was not used again, so this test shows nothing');

  assert.throws(
    () => socketTcp(gone, { family: 4 }),
    (error) => error instanceof MeshError && error.code === 'CV-NETNS',
  );
});
