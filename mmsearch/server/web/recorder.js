// Records from the microphone as WAV (mono, 16 bit), which the server reads without any extra.

export const LONGEST = 30; // seconds

// Starts, and gives a function that stops: stop(true) throws what was recorded away. `done` is called with the file, or null.
export async function record(done) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("This browser gives no page a microphone here. It needs https or localhost.");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext();
  await context.audioWorklet.addModule("recorder-worklet.js");
  const node = new AudioWorkletNode(context, "taker");
  const blocks = [];
  node.port.onmessage = ({ data }) => blocks.push(data);
  context.createMediaStreamSource(stream).connect(node);
  let stopped = false;
  const stop = (discard = false) => {
    if (stopped) return;
    stopped = true;
    clearTimeout(timer);
    stream.getTracks().forEach((track) => track.stop());
    context.close().catch(() => {}); // not waited for: a machine without speakers may never say that it is closed
    done(discard || !blocks.length ? null : wav(blocks, context.sampleRate));
  };
  const timer = setTimeout(stop, LONGEST * 1000);
  return stop;
}

function wav(blocks, rate) {
  const length = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * length));
  const write = (at, text) => [...text].forEach((letter, n) => view.setUint8(at + n, letter.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + 2 * length, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, "data");
  view.setUint32(40, 2 * length, true);
  let at = 44;
  for (const block of blocks) for (const sample of block) {
    view.setInt16(at, Math.max(-1, Math.min(1, sample)) * 32767, true);
    at += 2;
  }
  return new File([view], "recording.wav", { type: "audio/wav" });
}
