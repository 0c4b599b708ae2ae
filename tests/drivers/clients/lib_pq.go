// Connects with lib/pq. It takes one host, and knows no `prefer`.
package main

import (
	"bufio"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/lib/pq"
)

func main() {
	fmt.Println("lib/pq (Debian 12)")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		port, err := connect(fields)
		if err == nil {
			fmt.Printf("port %s\t\t\n", port)
			continue
		}
		var server *pq.Error
		code := ""
		if errors.As(err, &server) {
			code = string(server.Code)
		}
		fmt.Printf("%T\t%s\t%s\n", err, code, strings.Join(strings.Fields(err.Error()), " "))
	}
}

func connect(fields []string) (port string, err error) {
	host, number, _ := strings.Cut(fields[0], ":")
	info := fmt.Sprintf("host=%s port=%s user=driver dbname=postgres sslmode=%s", host, number, fields[1])
	if strings.HasPrefix(fields[1], "verify") {
		info += " sslrootcert=" + fields[3]
	}
	db, err := sql.Open("postgres", info)
	if err != nil {
		return "", err
	}
	defer db.Close()
	err = db.QueryRow("show port").Scan(&port)
	return port, err
}
