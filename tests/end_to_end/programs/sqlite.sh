# A database in a file: rows, floating point, text, plans; then whether it is whole.
cd /tmp
rm -f test.db
sqlite3 test.db <<'END'
PRAGMA journal_mode = WAL;
CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, x REAL, n INTEGER);
WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3000)
INSERT INTO t SELECT i, printf('%08x-%s', (i * 2654435761) % 4294967296, char(97 + i % 26)), (i * 0.37 - 500) / 7, (i * i) % 997 FROM c;
CREATE INDEX by_k ON t(k);
CREATE INDEX by_x ON t(x DESC);
UPDATE t SET x = x * x WHERE id % 3 = 0;
DELETE FROM t WHERE id % 41 = 0;
SELECT count(*), sum(x), avg(x), min(k), max(k), total(n) FROM t;
SELECT n % 7, count(*), printf('%.15g', sum(x)), group_concat(substr(k, 1, 3), '') FROM t WHERE id < 200 GROUP BY 1;
SELECT id, x, round(x, 3), cast(x AS INTEGER), x / 3, printf('%.17g|%e|%!.20f', x, x, x) FROM t ORDER BY x LIMIT 20;
SELECT a.id, b.id FROM t a JOIN t b ON b.n = a.n AND b.id > a.id WHERE a.id < 30 LIMIT 20;
SELECT upper(k), replace(k, '-', '+'), length(k), instr(k, 'a'), hex(k), quote(k), trim('  x '), unicode('é') FROM t LIMIT 5;
SELECT id, sum(n) OVER (ORDER BY id ROWS 3 PRECEDING), rank() OVER (ORDER BY n) FROM t WHERE id < 25;
SELECT date(2460000.5), time('12:00', '+1 hours'), julianday('2024-02-29'), strftime('%s', '2024-01-01');
SELECT json_extract('{"a":[1,2.5,"x"]}', '$.a[1]'), json_group_array(n) FROM t WHERE id < 10;
SELECT 1e308 * 10, -1e308 * 10, 0.1 + 0.2, 9223372036854775807 + 1, 5 / 2, 5.0 / 2, 7 % -3, 1e-320;
VACUUM;
PRAGMA integrity_check;
END
sqlite3 test.db .dump | sha256sum
sqlite3 test.db 'SELECT sqlite_version(); SELECT id, k, x FROM t WHERE id % 500 = 1'
