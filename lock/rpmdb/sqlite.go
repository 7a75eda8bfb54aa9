package rpmdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// readSQLite reads rpm's table Packages. The file lies in a folder of ours:
// with a write-ahead log beside it, SQLite writes there.
func readSQLite(ctx context.Context, name string, f visit) error {
	q := url.Values{"mode": {"ro"}, "immutable": {"1"}, "_pragma": {"trusted_schema(0)"}}
	if st, err := os.Stat(name + "-wal"); err == nil && st.Size() > 0 {
		q.Set("mode", "rw")
		q.Del("immutable")
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: abs, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := sqlite.Limit(conn, sqlite3.SQLITE_LIMIT_LENGTH, maxHeader); err != nil {
		return err
	}
	// A view or a virtual table could make rows without end.
	var plain int
	const query = `SELECT count(*) FROM sqlite_master WHERE name = 'Packages' AND type = 'table' AND rootpage > 0`
	if err := conn.QueryRowContext(ctx, query).Scan(&plain); err != nil {
		return err
	}
	if plain != 1 {
		return errors.New("no table Packages")
	}
	rows, err := conn.QueryContext(ctx, `SELECT rowid, blob FROM Packages ORDER BY rowid`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var number uint32
		var blob sql.RawBytes
		if err := rows.Scan(&number, &blob); err != nil {
			return fmt.Errorf("reading a row: %w", err)
		}
		if err := f(number, blob); err != nil {
			return err
		}
	}
	return rows.Err()
}
