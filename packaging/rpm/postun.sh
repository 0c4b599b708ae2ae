if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # A reload starts the new program without refusing a client. If it fails, the old process continues.
    if [ "$1" -ge 1 ] && systemctl --quiet is-active pgnorth.service; then
        systemctl reload pgnorth.service || :
    fi
fi
