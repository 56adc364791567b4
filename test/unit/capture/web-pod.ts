/** A pod for tests of its capture. */
import type { CapturedPod } from '../../../src/capture/pod-source.ts';

export const POD: CapturedPod = {
  uid: 'web',
  name: 'web',
  namespace: 'demo',
  serviceAccount: 'web',
  netnsPath: '/run/web',
  options: { isIngressMode: false, rerouteInterfaces: [] },
};
