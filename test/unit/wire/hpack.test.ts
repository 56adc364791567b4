import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../../src/base/errors.ts';
import { HpackDecoder } from '../../../src/wire/hpack-decoder.ts';
import { HpackEncoder } from '../../../src/wire/hpack-encoder.ts';

const ROOMY = { maxListBytes: 65_536 };

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));
}

function pairs(fields: readonly { readonly name: string; readonly value: string }[]): string[] {
  return fields.map(({ name, value }) => `${name}: ${value}`);
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (caught) {
    return caught instanceof MeshError ? caught.code : `not a MeshError: ${String(caught)}`;
  }
  return 'none';
}

/** RFC 7541 Appendix C: blocks of one connection, in order. */
const VECTORS: readonly {
  readonly name: string;
  readonly tableBytes?: number;
  readonly blocks: readonly (readonly [hex: string, fields: readonly string[]])[];
}[] = [
  {
    name: 'C.2.1 literal with indexing',
    blocks: [['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', ['custom-key: custom-header']]],
  },
  { name: 'C.2.2 literal without indexing', blocks: [['040c 2f73 616d 706c 652f 7061 7468', [':path: /sample/path']]] },
  {
    name: 'C.2.3 literal never indexed',
    blocks: [['1008 7061 7373 776f 7264 0673 6563 7265 74', ['password: secret']]],
  },
  { name: 'C.2.4 indexed', blocks: [['82', [':method: GET']]] },
  {
    name: 'C.3 requests without Huffman coding',
    blocks: [
      [
        '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'],
      ],
      [
        '8286 84be 5808 6e6f 2d63 6163 6865',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
      ],
      [
        '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
        [
          ':method: GET',
          ':scheme: https',
          ':path: /index.html',
          ':authority: www.example.com',
          'custom-key: custom-value',
        ],
      ],
    ],
  },
  {
    name: 'C.4 requests with Huffman coding',
    blocks: [
      [
        '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'],
      ],
      [
        '8286 84be 5886 a8eb 1064 9cbf',
        [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'],
      ],
      [
        '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
        [
          ':method: GET',
          ':scheme: https',
          ':path: /index.html',
          ':authority: www.example.com',
          'custom-key: custom-value',
        ],
      ],
    ],
  },
  {
    name: 'C.6 responses with Huffman coding and eviction',
    tableBytes: 256,
    blocks: [
      [
        '4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3',
        [
          ':status: 302',
          'cache-control: private',
          'date: Mon, 21 Oct 2013 20:13:21 GMT',
          'location: https://www.example.com',
        ],
      ],
      [
        '4883 640e ffc1 c0bf',
        [
          ':status: 307',
          'cache-control: private',
          'date: Mon, 21 Oct 2013 20:13:21 GMT',
          'location: https://www.example.com',
        ],
      ],
      [
        '88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07',
        [
          ':status: 200',
          'cache-control: private',
          'date: Mon, 21 Oct 2013 20:13:22 GMT',
          'location: https://www.example.com',
          'content-encoding: gzip',
          'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
        ],
      ],
    ],
  },
];

for (const { name, tableBytes, blocks } of VECTORS) {
  test(`the vectors of RFC 7541 ${name} decode to their fields`, () => {
    const decoder = new HpackDecoder({ ...ROOMY, ...(tableBytes !== undefined && { maxTableBytes: tableBytes }) });
    for (const [block, fields] of blocks) assert.deepEqual(pairs(decoder.decode(hex(block))), fields);
  });
}

const REFUSED: readonly (readonly [claim: string, block: string])[] = [
  ['an index of 0', '80'],
  ['an index past both tables', 'be'],
  ['an integer that never ends', 'ff ff ff ff ff ff ff ff ff ff ff'],
  ['an integer over 2^32', '7f ff ff ff ff ff 7f'],
  ['a string longer than its block', '00 05 61'],
  ['a block that ends inside a field', '40'],
  ['a table size over 4096', '3f e2 1f'],
  ['a table size after a field', '82 20'],
  ['three table sizes in one block', '20 20 20 82'],
  ['a Huffman string with EOS', '00 01 61 84 ff ff ff ff'],
  ['a Huffman padding of zero bits', '00 01 61 81 00'],
  ['a Huffman padding longer than seven bits', '00 01 61 82 07 ff'],
];

for (const [claim, block] of REFUSED) {
  test(`${claim} is refused`, () => {
    assert.equal(
      codeOf(() => new HpackDecoder(ROOMY).decode(hex(block))),
      'CV-WIRE-MALFORMED',
    );
  });
}

test('a header list over its limit is refused while it is decoded, also when it repeats one table entry', () => {
  const decoder = new HpackDecoder({ maxListBytes: 16_384 });
  const entry = hex(`40 01 61 7f a1 1e ${'62'.repeat(4000)}`);
  decoder.decode(entry);
  const bomb = new Uint8Array(16_000).fill(0xbe);
  assert.equal(
    codeOf(() => decoder.decode(bomb)),
    'CV-WIRE-TOO-LARGE',
  );
});

test('a literal that could not be accepted is refused before it is read, coded or not', () => {
  const plain = hex(`00 01 61 7f e9 07 ${'62'.repeat(1128)}`);
  assert.equal(
    codeOf(() => new HpackDecoder({ maxListBytes: 1000 }).decode(plain)),
    'CV-WIRE-TOO-LARGE',
  );
  const coded = hex(`00 01 61 ff e9 06 ${'00'.repeat(1000)}`);
  assert.equal(
    codeOf(() => new HpackDecoder({ maxListBytes: 1000 }).decode(coded)),
    'CV-WIRE-TOO-LARGE',
  );
});

test('any octets give fields or a MeshError', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 200 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder({ maxListBytes: 1000 });
      const code = codeOf(() => blocks.map((block) => decoder.decode(block)));
      assert.match(code, /^(none|CV-WIRE-MALFORMED|CV-WIRE-TOO-LARGE)$/);
    }),
  );
});

const latin1 = fc.uint8Array({ maxLength: 300 }).map((bytes) => String.fromCharCode(...bytes));

test('what the encoder writes is what the decoder reads', () => {
  const known = fc.constantFrom(
    { name: ':method', value: 'CONNECT' },
    { name: ':status', value: '200' },
    { name: 'host', value: '' },
  );
  const field = fc.oneof(known, fc.record({ name: latin1, value: latin1 }));
  fc.assert(
    fc.property(fc.array(fc.array(field, { maxLength: 8 }), { maxLength: 3 }), (lists) => {
      const encoder = new HpackEncoder();
      const decoder = new HpackDecoder(ROOMY);
      for (const list of lists) {
        for (const { name, value } of list) encoder.field(name, value);
        assert.deepEqual(pairs(decoder.decode(encoder.finish())), pairs(list));
      }
    }),
  );
});

test('the encoder refuses text that has no octets', () => {
  assert.equal(
    codeOf(() => new HpackEncoder().field('name', 'wide \u2603')),
    'CV-WIRE-MALFORMED',
  );
});
