import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errnoError } from '../../../src/sys/libc.ts';

const cures = [
  { errno: 'EPERM', cure: '; CAP_SYS_ADMIN and CAP_NET_ADMIN are needed' },
  { errno: 'EACCES', cure: '; run as root, or as a user who may use it' },
  { errno: 'EMFILE', cure: '; raise the limit of open files (ulimit -n)' },
  { errno: 'ENFILE', cure: '; raise the limit of open files of the machine (sysctl fs.file-max)' },
  { errno: 'EAFNOSUPPORT', cure: '; a kernel without IPv6 needs IPV6_ENABLED=false' },
  { errno: 'ENOENT', cure: '' },
] as const;

for (const { errno, cure } of cures) {
  test(`a call that fails with ${errno} says where, and ${cure === '' ? 'no cure that would be a guess' : 'its own cure'}`, () => {
    const { message, fields } = errnoError('CV-SYS', 'connect', errno, { path: '/run/zds.sock' });
    assert.equal(message, `connect failed with ${errno} (/run/zds.sock)${cure}`);
    assert.equal(fields['errno'], errno);
  });
}
