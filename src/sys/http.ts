/**
 * node:http without what an `import` of it brings along: that asks each of its getters, and the one of `WebSocket` loads all
 * of undici, which is 5 MiB of heap and a twentieth of the CPU time of a start.
 */
export const http = process.getBuiltinModule('node:http');
