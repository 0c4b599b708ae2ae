// Go's database/sql with lib/pq or pgx: `sql pq`, `sql pgx`. The environment and the account are as in load.py.
package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4/stdlib"
	"github.com/lib/pq"
)

type account struct {
	sync.Mutex
	Begun     int            `json:"begun"`
	Completed int            `json:"completed"`
	Rows      int            `json:"rows"`
	Longest   float64        `json:"longest"`
	Errors    map[string]int `json:"errors"`
}

var seen = account{Errors: map[string]int{}}

// logins opens connections, and counts them.
type logins struct {
	driver driver.Driver
	info   string
}

func (logins logins) Connect(context.Context) (driver.Conn, error) {
	seen.Lock()
	seen.Begun++
	seen.Unlock()
	connection, err := logins.driver.Open(logins.info)
	if err == nil {
		seen.Lock()
		seen.Completed++
		seen.Unlock()
	}
	return connection, err
}

func (logins logins) Driver() driver.Driver { return logins.driver }

func main() {
	name := os.Getenv("CLIENT_NAME")
	info := fmt.Sprintf("host=%s port=%s user=postgres password=rig dbname=postgres application_name=%s",
		os.Getenv("CLIENT_HOSTS"), os.Getenv("CLIENT_PORTS"), name)
	if ca := os.Getenv("CLIENT_CA"); ca != "" {
		info += " sslmode=verify-full sslrootcert=" + ca
	} else {
		info += " sslmode=disable"
	}
	var real driver.Driver = &pq.Driver{}
	if os.Args[1] == "pgx" {
		real = stdlib.GetDefaultDriver()
	}
	pool := sql.OpenDB(logins{real, info})
	pool.SetMaxOpenConns(3)
	pool.SetMaxIdleConns(3)
	over := make(chan struct{})
	var workers sync.WaitGroup
	for worker := 0; worker < 3; worker++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for {
				select {
				case <-over:
					return
				case <-time.After(30 * time.Millisecond):
					insert(pool, name)
				}
			}
		}()
	}
	io.Copy(io.Discard, os.Stdin)
	close(over)
	workers.Wait()
	json.NewEncoder(os.Stdout).Encode(&seen)
}

func insert(pool *sql.DB, name string) {
	began := time.Now()
	_, err := pool.Exec("insert into driven (client) values ('" + name + "')")
	took := time.Since(began).Seconds()
	seen.Lock()
	defer seen.Unlock()
	if err != nil {
		seen.Errors[kind(err)]++
		return
	}
	seen.Rows++
	if took > seen.Longest {
		seen.Longest = took
	}
}

func kind(err error) string {
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case errors.As(err, &ofPgx):
		return "PgError " + ofPgx.Code
	case errors.As(err, &ofPq):
		return "pq.Error " + string(ofPq.Code)
	}
	return fmt.Sprintf("%T", err)
}
