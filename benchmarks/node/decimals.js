// Exact money, as races/money.py has it: a number counts as its shortest decimal text. Values are digits / 10^scale.
// Amounts must stay below 2^53 / 100 cents, where doubles are exact.

const ZERO = { digits: 0n, scale: 0 };

function decimalOf(number) {
  if (Number.isSafeInteger(number)) return { digits: BigInt(number), scale: 0 };
  const [mantissa, exponent = "0"] = String(number).split("e");
  const [whole, fraction = ""] = mantissa.split(".");
  const scale = fraction.length - Number(exponent);
  const digits = BigInt(whole + fraction);
  return scale < 0 ? { digits: digits * 10n ** BigInt(-scale), scale: 0 } : { digits, scale };
}

function add(left, right) {
  const scale = Math.max(left.scale, right.scale);
  return { digits: scaled(left, scale) + scaled(right, scale), scale };
}

function scaled(decimal, scale) {
  return decimal.scale === scale ? decimal.digits : decimal.digits * 10n ** BigInt(scale - decimal.scale);
}

function roundHalfUp(numerator, denominator) {
  return Number((2n * numerator + denominator) / (2n * denominator));
}

export function addUp(decimals) {
  return decimals.reduce(add, ZERO);
}

export function exactSum(numbers) {
  const total = numbers.reduce((sum, number) => sum + number, 0);
  if (Number.isSafeInteger(total) && numbers.every(Number.isInteger)) return { digits: BigInt(total), scale: 0 };
  return addUp(numbers.map(decimalOf));
}

export function toNumber({ digits, scale }) {
  return Number(`${digits}e-${scale}`);
}

export function isPositive({ digits }) {
  return digits > 0n;
}

export function isBetween({ digits, scale }, lowest, highest) {
  const unit = 10n ** BigInt(scale);
  return BigInt(lowest) * unit < digits && digits < BigInt(highest) * unit;
}

export function cents(dollars) {
  return roundHalfUp(100n * dollars.digits, 10n ** BigInt(dollars.scale));
}

export function shareOf(poolCents, percentage) {
  return roundHalfUp(BigInt(poolCents) * percentage.digits, 100n * 10n ** BigInt(percentage.scale));
}

export function percentageOf(poolCents, amountCents) {
  return poolCents ? (100 * amountCents) / poolCents : null;
}
